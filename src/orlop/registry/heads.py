"""Requests and responses as whoever looks for a fault may see them: without secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from orlop.registry.failures import plain

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
        return plain(value) if "://" in value else value.partition("?")[0]
    return value if name in _SHOWN else "…"
