"""By which names a server may be called, so that no other name leads to it (DNS rebinding).

A page of another site can have its own name resolve to this machine, and its scripts then read what
is served here as if it were theirs. They cannot do so with an address, nor with `localhost`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


def is_welcome(header: str, names: Collection[str]) -> bool:
    """Whether a request with this Host header means an address, localhost, or one of `names`."""
    host = _without_port(header.strip().lower())
    if host.startswith("["):
        return _is_address(host[1:-1]) if host.endswith("]") else False
    return host == "localhost" or host in names or _is_address(host)


def _without_port(header: str) -> str:
    host, colon, port = header.rpartition(":")
    return host if colon and (port.isdecimal() or not port) and port.isascii() else header


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
