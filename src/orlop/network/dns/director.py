"""The daemon's side of the DNS process: it is told what records say, and replaced if it dies."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from orlop import __version__, errors
from orlop.fork.worker import Spawner
from orlop.network import wishes
from orlop.network.dns import messages
from orlop.network.dns.messages import Entry, Place
from orlop.network.model import Network
from orlop.network.store import NetworkStore

_NAME_LABEL = "orlop/name"
_ENTRY = "orlop.network.dns.server:main"
_IDLE = 30.0  # seconds
_LIMIT = 10.0  # seconds for an answer
_BUFFER = 4 << 20  # bytes of queries that may wait
_PAUSE = 1.0  # seconds before one is replaced that died at once
_IPV6_FREEBIND = 78
_IP_FREEBIND = 15
_SO_RCVBUFFORCE = 33
_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(messages.Answer).decode


class Record(Protocol):
    """What is read of a container's record."""

    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def spec(self) -> Any | None: ...


RecordOf = Callable[[str, str], Record]
"""From a namespace and a container to its record; raises NotFound."""


class _Spec(msgspec.Struct):
    hostname: str = ""


class NameServer:
    """Has the names of containers answered on the gateways of their networks. Thread-safe.

    The process is started with the first container, and found again by its socket `path`. All that
    it is told is what the store says at the moment; `moved` is called when ports have changed.
    """

    def __init__(
        self,
        forks: Spawner,
        path: Path,
        store: NetworkStore,
        record_of: RecordOf,
        *,
        idle: float = _IDLE,
    ) -> None:
        self._forks = forks
        self._path = path
        self._store = store
        self._record_of = record_of
        self._idle = idle
        self._lock = threading.RLock()
        self._channel: socket.socket | None = None
        self._ports: dict[str, dict[str, tuple[int, int]]] = {}
        self._began = 0.0
        self._closing = False
        self.moved: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Leave the process alone: it goes on as long as there are containers."""
        with self._lock:
            self._closing = True
            self._drop()
            if not self._store.occupied():
                self._path.unlink(missing_ok=True)

    def ports(self) -> dict[str, tuple[int, int]]:
        """By the address of a gateway, where queries to it are answered: by UDP and by TCP."""
        return {key: value for each in list(self._ports.values()) for key, value in each.items()}

    def update(self, namespace: str, container: str) -> None:
        """A container has come, gone, or changed its names or places. Raises Unavailable."""
        with self._lock:
            if self._channel is not None:
                with suppress(errors.Unavailable):  # it has just died
                    self._tell_of(namespace, container)
                    return
            self.resume()

    def resume(self) -> None:
        """Have a process that knows all, whoever has started it, if there is anything to know."""
        with self._lock:
            if self._channel is None and not self._closing and self._store.occupied():
                self._connect()

    def leave(self, network: Network) -> None:
        """A network is no more."""
        with self._lock:
            self._ports.pop(network.id, None)
            if self._channel is not None:
                with suppress(errors.Unavailable):
                    self._tell(messages.Leave(network=network.id))

    def _tell_of(self, namespace: str, container: str) -> None:
        message = self._what_of(namespace, container)
        self._tell(message)
        if isinstance(message, messages.Put):
            new = {each.network for each in message.entry.places} - self._ports.keys()
            listening = [self._listen(self._store.get(namespace, each)) for each in new]
            if any(listening):
                self.moved()

    def _what_of(self, namespace: str, container: str) -> messages.Put | messages.Drop:
        places = []
        for each in self._store.endpoints(namespace, container):
            network = self._store.get(namespace, each.network)
            subnets = tuple(subnet.subnet for subnet in network.subnets)
            places.append(
                Place(
                    network=network.id,
                    network_name=network.name,
                    internal=network.internal,
                    addresses=each.addresses,
                    aliases=each.aliases,
                    subnets=subnets,
                )
            )
        if not places:
            return messages.Drop(namespace=namespace, container=container)
        names, upstreams = self._described(namespace, container)
        return messages.Put(entry=Entry(namespace, container, names, tuple(places), upstreams))

    def _described(self, namespace: str, container: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of a container, the one that it goes by first, and its name servers."""
        try:
            record = self._record_of(namespace, container)
            wanted = wishes.of(container, record.labels)
        except errors.OrlopError:  # it is being removed
            return (container,), ()
        hostname = ""
        if record.spec is not None:
            with suppress(msgspec.DecodeError):
                hostname = msgspec.json.decode(record.spec.value, type=_Spec).hostname
        found = (record.labels.get(_NAME_LABEL) or container, hostname)
        return tuple(filter(None, found)), wanted.dns if wanted is not None else ()

    # The process

    def _connect(self) -> None:
        before = self.ports()
        self._channel = self._found() or self._started()
        threading.Thread(
            target=self._watch, args=(self._channel,), name="dns-watch", daemon=True
        ).start()
        self._tell_all()
        if self.ports() != before:
            self.moved()

    def _found(self) -> socket.socket | None:
        """A connection to a process that an earlier daemon has started; None without any."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(_LIMIT)
        try:
            channel.connect(str(self._path))
            if self._exchange(channel, messages.Begin()).version == __version__:
                return channel
        except (OSError, msgspec.DecodeError):
            pass
        channel.close()  # nobody is there, or it is not our kind: without its file it ends
        return None

    def _started(self) -> socket.socket:
        time.sleep(max(0.0, self._began + _PAUSE - time.monotonic()))
        self._began = time.monotonic()
        self._ports.clear()
        with ExitStack() as stack:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(listening)
            self._path.unlink(missing_ok=True)
            listening.bind(str(self._path))
            self._path.chmod(0o600)
            listening.listen(8)
            file = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
            stack.callback(os.close, file)
            args = {"idle": self._idle}
            self._forks.spawn(_ENTRY, args, [listening.fileno(), file], name="orlop-dns")
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(_LIMIT)
        try:
            channel.connect(str(self._path))
        except OSError as error:
            channel.close()
            raise errors.Unavailable(f"the DNS process has not started: {error}") from error
        return channel

    def _tell_all(self) -> None:
        self._tell(messages.Begin())
        endpoints = self._store.endpoints()
        used = {each.network for each in endpoints}
        for network in self._store.all():
            if network.id in used:
                self._listen(network)
        for key in sorted({(each.namespace, each.container) for each in endpoints}):
            self._tell(self._what_of(*key))
        self._tell(messages.End())

    def _listen(self, network: Network) -> bool:
        """Have a network's queries answered; whether there are any that reach the host."""
        if not network.is_bridge:
            return False
        ports = self._tell(messages.Listen(network=network.id)).ports
        if not ports:
            with ExitStack() as stack:
                made = [
                    stack.enter_context(_bound(subnet.gateway, kind))
                    for subnet in network.subnets
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
                ]
                ports = self._tell(messages.Listen(network=network.id), made).ports
        self._ports[network.id] = ports
        return True

    def _tell(
        self, message: messages.AnyMessage, sockets: list[socket.socket] | None = None
    ) -> messages.Answer:
        assert self._channel is not None
        try:
            return self._exchange(self._channel, message, sockets or [])
        except (OSError, msgspec.DecodeError) as error:
            self._drop()
            raise errors.Unavailable(f"the DNS process does not answer: {error}") from error

    def _exchange(
        self,
        channel: socket.socket,
        message: messages.AnyMessage,
        sockets: list[socket.socket] | None = None,
    ) -> messages.Answer:
        fds = [each.fileno() for each in sockets or ()]
        socket.send_fds(channel, [_encode(message)], fds)
        answer = channel.recv(messages.MAX_PACKET)
        if not answer:
            raise ConnectionResetError("it has ended")
        return _decode(answer)

    def _drop(self) -> None:
        if self._channel is not None:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)  # which wakes `_watch`
            self._channel.close()
            self._channel = None

    def _watch(self, channel: socket.socket) -> None:
        """Wait until the process ends, and have another one if it is needed."""
        poll = select.poll()
        poll.register(channel, select.POLLRDHUP)
        poll.poll()
        with self._lock:
            if self._closing or self._channel is not channel:
                return
            self._drop()
            try:
                self.resume()
            except (errors.OrlopError, OSError) as error:
                _log.warning("names of containers are not answered: %s", error)


def _bound(address: str, kind: socket.SocketKind) -> socket.socket:
    """A socket at an address that the host need not have yet, on any port."""
    version6 = ":" in address
    made = socket.socket(socket.AF_INET6 if version6 else socket.AF_INET, kind)
    try:
        if version6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        made.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            made.listen(128)
        else:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except OSError as error:
        made.close()
        raise errors.Unavailable(f"DNS at {address}: {str(error.strerror).lower()}") from None
    return made
