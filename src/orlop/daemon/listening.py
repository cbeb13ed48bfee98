"""Addresses of the configuration that HTTP is served on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.daemon.config import ConfigError

# A configuration is checked before there are rooms, and most serve nothing.
if TYPE_CHECKING:
    import ipaddress


def host_and_port(key: str, text: str) -> tuple[str, int]:
    """Raises ConfigError, which names the key, for what is not host:port."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f'configuration: {key} must be host:port, not "{text}"')
    if host != "localhost":
        _ip(key, host)
    return host, int(port)


def is_loopback(host: str) -> bool:
    return host == "localhost" or _ip("", host).is_loopback


def is_wildcard(host: str) -> bool:
    return host != "localhost" and _ip("", host).is_unspecified


def _ip(key: str, host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    import ipaddress  # noqa: PLC0415 - see above

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(
            f'configuration: {key} must begin with an IP address or localhost, not "{host}"'
        ) from None
