"""One server that may serve a registry's content: the registry itself, or a mirror of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from urllib.parse import quote

from orlop.errors import InvalidArgument
from orlop.registry.probe import speaks_tls

_API_HOSTS = {"docker.io": "registry-1.docker.io"}
_SCHEMES = ("", "http", "https")


class Capability(Flag):
    """What a host may be asked for: tags to digests, content, to take content, and what refers
    to content."""

    RESOLVE = auto()
    PULL = auto()
    PUSH = auto()
    REFERRERS = auto()
    ALL = RESOLVE | PULL | PUSH | REFERRERS


@dataclass(frozen=True, slots=True)
class Tls:
    """How a host is trusted, and told who we are.

    `ca` are files of certificates to trust besides the system's; `client` are pairs of files, a
    certificate and its key, the key "" when it is in the same file. With `own_only` all of that is
    about this host, and not about those that it names.
    """

    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    skip_verify: bool = False
    own_only: bool = False

    def for_strangers(self) -> Tls:
        """What holds for a host to which this one redirects: the trust, not who we are."""
        return NO_TLS if self.own_only else replace(self, client=())


NO_TLS = Tls()
_ANY_TLS = Tls(skip_verify=True, own_only=True)


@dataclass(frozen=True, slots=True)
class Dial:
    """How long to wait for a connection, in seconds (0 for the usual).

    With `once`, a host to which there is none, or that says nothing, is not tried again, and one
    that wants to be asked later only within seconds: for one that another can stand in for.
    """

    timeout: float = 0.0
    once: bool = False


DIAL = Dial()


@dataclass(frozen=True, slots=True)
class Host:
    """A server: `scheme` is http or https, `name` host[:port], `prefix` the path of its API.

    `namespace` is the registry that it mirrors, "" for the registry itself. `headers` go with
    every request to it, and to it alone. `dial_timeout` is in seconds, 0 for the usual.
    """

    scheme: str
    name: str
    prefix: str = "/v2"
    namespace: str = ""
    capabilities: Capability = Capability.ALL
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = NO_TLS
    dial_timeout: float = 0.0

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    def url(self, path: str) -> str:
        """The address of an API path such as `/library/busybox/tags/list`.

        A mirror is told which registry it is to stand for.
        """
        address = f"{self.scheme}://{self.name}{self.prefix}{path}"
        if not self.namespace:
            return address
        return f"{address}{'&' if '?' in path else '?'}ns={quote(self.namespace, safe=':')}"


def default_host(
    name: str,
    scheme: str = "",
    headers: Mapping[str, str] | None = None,
    tls: Tls = NO_TLS,
) -> Host:
    """The registry `name` itself.

    `scheme` is http or https; "" means https, but for this machine what the server there speaks,
    which is found out by asking it; without settings for `tls` its certificate is not looked at
    then. Raises Unavailable when a server on this machine says nothing.
    """
    if scheme not in _SCHEMES:
        raise InvalidArgument(f'scheme "{scheme}" is neither http nor https')
    address = api_host(name)
    if not scheme and is_local(address):
        scheme = "https" if speaks_tls(address) else "http"
        tls = _ANY_TLS if tls == NO_TLS else tls
    return Host(scheme or "https", address, headers=headers or {}, tls=tls)


def api_host(name: str) -> str:
    """The host that serves the API of the registry `name`: docker.io has it elsewhere."""
    return _API_HOSTS.get(name, name)


def is_local(name: str) -> bool:
    """Whether host[:port] is this machine by its name alone."""
    host = name.rpartition(":")[0] if name.rpartition(":")[2].isdecimal() else name
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
