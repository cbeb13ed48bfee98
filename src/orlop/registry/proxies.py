"""The proxy for a host, by the environment: HTTP_PROXY, HTTPS_PROXY, NO_PROXY."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.request import getproxies_environment

from urllib3.util import Url, parse_url

from orlop.errors import InvalidArgument
from orlop.registry.host import is_local

SOCKS = ("socks5", "socks5h")
"""The schemes of proxies that speak SOCKS; they look up names, as by Go's programs."""


class Proxies:
    """Made of an environment once, `os.environ` unless another is given.

    NO_PROXY lists hosts, domains with all below them, addresses and networks, each with or without
    a port, or `*`. This machine is never asked for through a proxy.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found: Mapping[str, str]
        if environment is None:
            found = getproxies_environment()
        else:
            lower = {key.lower(): value for key, value in environment.items()}
            found = {
                key.removesuffix("_proxy"): value
                for key, value in lower.items()
                if key.endswith("_proxy") and value
            }
        self._by_scheme: dict[str, str] = {
            key: found[key] for key in ("http", "https") if key in found
        }
        self._except = [each.strip().lower() for each in found.get("no", "").split(",")]

    def proxy(self, scheme: str, host: str, port: int) -> Url | None:
        """The proxy to reach a host by, None to go straight to it."""
        address = self._by_scheme.get(scheme)
        if not address or is_local(host) or self._excepted(host.lower().strip("[]"), port):
            return None
        url = parse_url(address if "://" in address else f"http://{address}")
        if url.scheme not in ("http", "https", *SOCKS) or not url.host:
            raise InvalidArgument(
                f"{scheme.upper()}_PROXY does not name a proxy of http, https or socks5"
            )
        return url

    def _excepted(self, host: str, port: int) -> bool:
        return any(_matches(each, host, port) for each in self._except if each)


def _matches(pattern: str, host: str, port: int) -> bool:
    if pattern == "*":
        return True
    name, colon, wanted = pattern.rpartition(":")
    if colon and wanted.isdecimal() and (":" not in name or name.endswith("]")):
        if int(wanted) != port:
            return False
        pattern = name
    pattern = pattern.strip("[]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        pass
    pattern = pattern.removeprefix("*").removeprefix(".")
    return host == pattern or host.endswith(f".{pattern}")
