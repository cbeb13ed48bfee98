"""Ports of the host that lead to containers: held by sockets, so that nobody else takes them.

Where the kernel has no sockets of a protocol, SCTP, no program can take its ports: they are noted
here, so that no two containers do.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import logging
import random
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress

import msgspec

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.network.loopback import ADDRESS, Loopback, Target
from orlop.network.model import PROTOCOLS, Port
from orlop.network.pools import without_zone

_TYPES = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_DYNAMIC, _LAST = 49152, 65535
_TRIES = 16  # of a number that is to be free with each version of IP
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_NO_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
_log = logging.getLogger(__name__)
Key = tuple[str, str]
"""A namespace and a container."""
_Sockets = dict[int, socket.socket | None]
AddressOf = Callable[[str, str], str]
"""Where the ports of a container lead to at the moment, "" if nowhere."""


class _TakenError(FailedPrecondition):
    """Another number may be free."""


def check(port: Port) -> None:
    """Raise InvalidArgument for what is no port mapping."""
    if port.protocol not in PROTOCOLS:
        raise InvalidArgument(f'protocol "{port.protocol}" is none of {", ".join(PROTOCOLS)}')
    for first in (port.host_port or 1, port.container_port):
        if first < 1 or port.count < 1 or first + port.count - 1 > _LAST:
            raise InvalidArgument(f"ports {first} to {first + port.count - 1} are not 1 to {_LAST}")
    if not port.host_port and port.count > 1:
        raise InvalidArgument("a range of ports needs one of the host of the same length")
    if port.host_port_end and (
        port.count > 1 or not 1 <= port.host_port <= port.host_port_end <= _LAST
    ):
        raise InvalidArgument(
            f"ports {port.host_port} to {port.host_port_end} of the host, of which one is to lead"
            f" to {port.count} of a container"
        )
    if port.host_address:
        try:
            ipaddress.ip_address(without_zone(port.host_address))
        except ValueError as error:
            raise InvalidArgument(f"host address of a port: {error}") from None


class HostPorts:
    """The sockets that hold ports: bound, and heard at [::1] alone (`loopback`). Thread-safe."""

    def __init__(self, loopback: Loopback, address_of: AddressOf) -> None:
        self._loopback = loopback
        self._address_of = address_of
        self._lock = threading.Lock()
        self._held: dict[Key, ExitStack] = {}
        # Numbers, versions of IP and addresses where the kernel has no sockets, so nobody else has.
        self._noted: set[tuple[int, int, str]] = set()

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
        if port.host_address:
            address = ipaddress.ip_address(port.host_address)
            port = msgspec.structs.replace(port, host_address=str(address))
            versions = (address.version,)
        port, sockets = self._choose(stack, port, versions)
        if target is not None and port.protocol == "tcp" and port.host_address in ("", ADDRESS):
            for step, bound in enumerate(sockets):
                self._hear(stack, port, step, target, bound.get(6))
        return port

    def _choose(
        self, stack: ExitStack, port: Port, versions: Sequence[int]
    ) -> tuple[Port, list[_Sockets]]:
        """The mapping with the numbers that it gets, and what holds each of them."""
        if port.host_port and not port.host_port_end:
            return self._take(stack, port, versions)
        numbers: Iterable[int] = itertools.repeat(0, _TRIES)
        if port.host_port_end:
            numbers = range(port.host_port, port.host_port_end + 1)
        for number in numbers:
            tried = msgspec.structs.replace(port, host_port=number, host_port_end=0)
            with suppress(_TakenError), ExitStack() as trying:
                found = self._take(trying, tried, versions)
                stack.push(trying.pop_all())
                return found
        asked = f"{port.host_port}-{port.host_port_end}" if port.host_port_end else "any"
        raise FailedPrecondition(f"{_place(port, asked)}: none is free")

    def _take(
        self, stack: ExitStack, port: Port, versions: Sequence[int]
    ) -> tuple[Port, list[_Sockets]]:
        found: list[_Sockets] = []
        for step in range(port.count):
            sockets: _Sockets = {}
            for version in versions:
                number = port.host_port + step if port.host_port else 0
                sockets[version], number = self._bind(stack, port, version, number)
                if not port.host_port:
                    port = msgspec.structs.replace(port, host_port=number)
            found.append(sockets)
        return port, found

    def _bind(
        self, stack: ExitStack, port: Port, version: int, number: int
    ) -> tuple[socket.socket | None, int]:
        """What holds a number, or with 0 a free one, and which it is."""
        try:
            bound = _open(stack, port, version, number)
        except OSError as error:
            if error.errno in _NO_PROTOCOL:
                return None, self._note(stack, port, version, number)
            where = _place(port, str(number))
            if error.errno == errno.EADDRINUSE:
                raise _TakenError(f"{where} is taken") from None
            raise FailedPrecondition(f"{where}: {str(error.strerror).lower()}") from None
        return bound, int(bound.getsockname()[1])

    def _note(self, stack: ExitStack, port: Port, version: int, number: int) -> int:
        """The same without a socket."""
        number = number or random.randint(_DYNAMIC, _LAST)
        entry = (number, version, port.host_address)
        with self._lock:
            for *which, address in self._noted:
                if which == [number, version] and (not address or entry[2] in ("", address)):
                    raise _TakenError(f"{_place(port, str(number))} is taken")
            self._noted.add(entry)
        stack.callback(self._forget, entry)
        return number

    def _forget(self, entry: tuple[int, int, str]) -> None:
        with self._lock:
            self._noted.discard(entry)

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


def _place(port: Port, which: str) -> str:
    return f"{port.host_address or 'any address'}, port {which}/{port.protocol} of the host"


def _open(stack: ExitStack, port: Port, version: int, number: int) -> socket.socket:
    family, everywhere = (socket.AF_INET, "0.0.0.0") if version == 4 else (socket.AF_INET6, "::")
    made = stack.enter_context(socket.socket(family, *_TYPES[port.protocol]))
    if version == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if port.protocol == "tcp":  # connections that have just ended do not count
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((port.host_address or everywhere, number))
    if port.protocol == "tcp":  # and from now on it does, to whoever tries
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return made
