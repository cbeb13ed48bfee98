"""Addresses as others give them: some are malformed, and not all are safe to follow."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from orlop.errors import Unavailable

_PORTS = {"http": 80, "https": 443}


def split(url: str) -> SplitResult | None:
    """The parts of an address; None for one that is malformed, as with a port of 99999."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def plain(url: str) -> str:
    """An address as it may be shown: without query and user; an ellipsis if it is malformed."""
    parts = split(url)
    return "…" if parts is None else f"{parts.scheme}://{authority(url)}{parts.path}"


def authority(url: str) -> str:
    """The host[:port] of an address, "" if it is malformed."""
    parts = split(url)
    return "" if parts is None else parts.netloc.rpartition("@")[2]


def resolve(url: str, reference: str) -> str:
    """The address that `reference` means at `url`; "" if it is malformed."""
    try:
        return urljoin(url, reference)
    except ValueError:
        return ""


def follow(url: str, reference: str) -> str:
    """Where the host of `url` sends us, by a redirect or the location of an upload.

    Raises Unavailable for what is malformed, or not safe: nothing goes from TLS to plain.
    """
    target = resolve(url, reference)
    before, after = split(url), split(target)
    if before is None or after is None or not after.scheme:
        raise Unavailable(f'"{plain(url)}" leads to a malformed address')
    if after.scheme != "https" and (before.scheme, after.scheme) != ("http", "http"):
        raise Unavailable(f'"{plain(url)}" leads to "{plain(target)}", which is not safe to follow')
    return target


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses are of one scheme, host and port, and so may see the same secrets."""
    origin = _origin(one)
    return origin is not None and origin == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    parts = split(url)
    return parts and (parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme))
