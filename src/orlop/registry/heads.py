"""Requests and responses as whoever looks for a fault may see them: without secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from orlop.registry.addresses import plain

Dump = Callable[[str], None]

# What others hold may be a secret: tokens, cookies, signed addresses, an operator's own headers.
_SHOWN = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-ranges",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "docker-content-digest",
        "docker-distribution-api-version",
        "etag",
        "oci-filters-applied",
        "oci-subject",
        "range",
        "retry-after",
        "server",
        "user-agent",
        "www-authenticate",
    }
)


def request_head(method: str, url: str, headers: Mapping[str, str]) -> str:
    return _head(f"{method} {plain(url)}", headers.items())


def response_head(status: int, reason: str | None, headers: Mapping[str, str]) -> str:
    return _head(f"HTTP {status} {reason or ''}".rstrip(), headers.items())


def _head(first: str, headers: Iterable[tuple[str, str]]) -> str:
    lines = [first, *(f"{key}: {_value(key.lower(), value)}" for key, value in headers)]
    return "\r\n".join(lines) + "\r\n\r\n"


def _value(name: str, value: str) -> str:
    if name == "location":
        return _location(value)
    return value if name in _SHOWN else "…"


def _location(value: str) -> str:
    """Where a redirect goes, without user and query; others write it, so it may be anything."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return "…"
    if parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}{':' if parts.scheme else ''}//{host}{parts.path}"
    return "…" if parts.scheme else parts.path
