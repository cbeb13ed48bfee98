"""Ports of the host that lead to containers: held by sockets, so that nobody else takes them."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import msgspec

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.network.loopback import ADDRESS, Loopback, Target
from orlop.network.model import PROTOCOLS, Port

_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LAST = 65535
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_log = logging.getLogger(__name__)
Key = tuple[str, str]
"""A namespace and a container."""
AddressOf = Callable[[str, str], str]
"""Where the ports of a container lead to at the moment, "" if nowhere."""


def check(port: Port) -> None:
    """Raise InvalidArgument for what is no port mapping."""
    if port.protocol not in PROTOCOLS:
        raise InvalidArgument(f'protocol "{port.protocol}" is none of {", ".join(PROTOCOLS)}')
    for first in (port.host_port or 1, port.container_port):
        if first < 1 or port.count < 1 or first + port.count - 1 > _LAST:
            raise InvalidArgument(f"ports {first} to {first + port.count - 1} are not 1 to {_LAST}")
    if not port.host_port and port.count > 1:
        raise InvalidArgument("a range of ports needs one of the host of the same length")
    if port.host_address:
        try:
            ipaddress.ip_address(port.host_address)
        except ValueError as error:
            raise InvalidArgument(f"host address of a port: {error}") from None


class HostPorts:
    """The sockets that hold ports: bound, and heard at [::1] alone (`loopback`). Thread-safe."""

    def __init__(self, loopback: Loopback, address_of: AddressOf) -> None:
        self._loopback = loopback
        self._address_of = address_of
        self._lock = threading.Lock()
        self._held: dict[Key, ExitStack] = {}

    def hold(
        self, key: Key, ports: Sequence[Port], versions: Iterable[int], *, loopback: bool = False
    ) -> list[Port]:
        """Take ports for a container; with a port chosen where none is named.

        With `loopback`, connections to [::1] are led to where its ports lead to when they come.
        Raises FailedPrecondition for a port that is taken, and holds none then.
        """
        with ExitStack() as stack:
            target = (lambda: self._address_of(*key)) if loopback else None
            found = [self._hold(stack, each, tuple(versions), target) for each in ports]
            kept = stack.pop_all()
        with self._lock:
            before = self._held.pop(key, None)
            self._held[key] = kept
        if before is not None:
            before.close()
        return found

    def holds(self, key: Key) -> bool:
        """Whether ports are taken for a container."""
        with self._lock:
            return key in self._held

    def release(self, key: Key) -> None:
        with self._lock:
            held = self._held.pop(key, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        with self._lock:
            held, self._held = list(self._held.values()), {}
        for each in held:
            each.close()

    def _hold(
        self, stack: ExitStack, port: Port, versions: Sequence[int], target: Target | None
    ) -> Port:
        check(port)
        if port.protocol not in _TYPES:  # sctp, for which a kernel need have no sockets
            if not port.host_port:
                raise InvalidArgument(f"port {port.container_port}/sctp needs a port of the host")
            return port
        if port.host_address:
            versions = (ipaddress.ip_address(port.host_address).version,)
        for step in range(port.count):
            sockets = {}
            for version in versions:
                number = port.host_port + step if port.host_port else 0
                sockets[version] = _bind(stack, port, version, number)
                if not port.host_port:
                    taken = int(sockets[version].getsockname()[1])
                    port = msgspec.structs.replace(port, host_port=taken)
            if target is not None and port.protocol == "tcp" and port.host_address in ("", ADDRESS):
                self._hear(stack, port, step, target, sockets.get(6))
        return port

    def _hear(
        self, stack: ExitStack, port: Port, step: int, target: Target, bound: socket.socket | None
    ) -> None:
        """Lead [::1] to the container, where it is not another program's or does not exist."""
        number = port.host_port + step
        try:
            if bound is None:
                at = msgspec.structs.replace(port, host_address=ADDRESS)
                bound = _open(stack, at, 6, number)
            self._loopback.listen(bound, target, port.container_port + step)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                reason = str(error.strerror).lower()
                _log.info("port %d at [%s] leads to no container: %s", number, ADDRESS, reason)
            return
        stack.callback(self._loopback.stop, bound)


def _bind(stack: ExitStack, port: Port, version: int, number: int) -> socket.socket:
    try:
        return _open(stack, port, version, number)
    except OSError as error:
        where = f"{port.host_address or 'any address'}, port {number}/{port.protocol}"
        if error.errno == errno.EADDRINUSE:
            raise FailedPrecondition(f"{where} of the host is taken") from None
        raise FailedPrecondition(f"{where} of the host: {str(error.strerror).lower()}") from None


def _open(stack: ExitStack, port: Port, version: int, number: int) -> socket.socket:
    family, everywhere = (socket.AF_INET, "0.0.0.0") if version == 4 else (socket.AF_INET6, "::")
    made = stack.enter_context(socket.socket(family, _TYPES[port.protocol]))
    if version == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if port.protocol == "tcp":  # connections that have just ended do not count
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((port.host_address or everywhere, number))
    if port.protocol == "tcp":  # and from now on it does, to whoever tries
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return made
