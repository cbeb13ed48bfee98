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
from typing import Any, Literal, Protocol

import msgspec

from orlop import __version__, errors, typed
from orlop.fork.worker import Spawner
from orlop.network import wishes
from orlop.network.dns import messages
from orlop.network.dns.messages import Entry, Place
from orlop.network.model import Network
from orlop.network.resolvconf import is_address
from orlop.network.store import NetworkStore

_NAME_LABEL = "orlop/name"
_ENTRY = "orlop.network.dns.server:main"
_IDLE = 30.0  # seconds
_LIMIT = 5.0  # seconds for an answer
_BUFFER = 4 << 20  # bytes of queries that may wait
_PAUSE = 1.0  # seconds before it is tried again, if it died at once or did not begin
_LONGEST_PAUSE = 30.0
_IPV6_FREEBIND = 78
_IP_FREEBIND = 15
_SO_RCVBUFFORCE = 33
_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_decode = typed.decoder(messages.Answer).decode


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
        self._announced: dict[str, tuple[int, int]] = {}
        self._not_before = 0.0
        self._pause = _PAUSE
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self.moved: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Leave the process alone: it goes on as long as there are containers."""
        with self._lock:
            self._closing.set()
            self._drop()
            if not self._store.occupied():
                self._path.unlink(missing_ok=True)
            keeper = self._keeper
        if keeper is not None:
            keeper.join()

    def ports(self) -> dict[str, tuple[int, int]]:
        """By the address of a gateway, where queries to it are answered: by UDP and by TCP."""
        return {key: value for each in list(self._ports.values()) for key, value in each.items()}

    def update(self, namespace: str, container: str) -> None:
        """A container has come, gone, or changed its names or places.

        Raises Unavailable if that cannot be told, which is tried again by itself.
        """
        with self._lock:
            if self._channel is not None:
                with suppress(errors.Unavailable):  # it has just died
                    self._tell_of(namespace, container)
                    return
            self._begin()

    def resume(self) -> None:
        """Have a process that knows all, whoever has started it, if there is anything to know."""
        with self._lock:
            self._begin()
            if self._channel is None and not self._closing.is_set() and self._path.exists():
                self._dismiss()

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
            for each in {each.network for each in message.entry.places} - self._ports.keys():
                self._listen(self._store.get(namespace, each))
            self._announce()

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
        put = messages.Put(entry=Entry(namespace, container, names, tuple(places), upstreams))
        if len(_encode(put)) > messages.MAX_PACKET:
            _log.warning("namespace=%s container=%s has too many names", namespace, container)
            return messages.Drop(namespace=namespace, container=container)
        return put

    def names_of(self, namespace: str, container: str) -> tuple[str, ...]:
        """What a container is called, but for its id; the name that it goes by first."""
        return self._described(namespace, container)[0]

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
                hostname = typed.decode(record.spec.value, _Spec).hostname
        found = (record.labels.get(_NAME_LABEL) or container, hostname)
        servers = wanted.dns if wanted is not None else ()  # which may have changed since the start
        return tuple(filter(None, found)), tuple(filter(is_address, servers))

    # The process

    def _begin(self) -> None:
        """Have a process, if there is anything to know and there is none."""
        if self._channel is not None or self._closing.is_set() or not self._store.occupied():
            return
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="dns-watch", daemon=True)
            self._keeper.start()
        if time.monotonic() < self._not_before:
            raise errors.Unavailable("there is no DNS process: it is started again in a moment")
        try:
            self._connect()
        except (errors.OrlopError, OSError) as error:
            self._drop()
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            raise errors.Unavailable(f"the DNS process has not begun: {error}") from error
        self._pause = _PAUSE

    def _keep(self) -> None:
        """As long as there is anything to know: have another process when one ends, and try again
        after a pause when none has begun.
        """
        while (watched := self._kept()) is not False:
            if watched is None:
                self._closing.wait(_PAUSE)
                continue
            with watched:
                poll = select.poll()
                poll.register(watched, select.POLLRDHUP)
                poll.poll()

    def _kept(self) -> socket.socket | Literal[False] | None:
        """Another handle of the connection to watch; None for now, False if none is needed."""
        with self._lock:
            if self._channel is not None and _has_ended(self._channel):
                self._drop()
            try:
                if time.monotonic() >= self._not_before:
                    self._begin()
                if self._channel is not None:
                    return self._channel.dup()  # no other file can take its number
            except (errors.OrlopError, OSError) as error:
                _log.warning("names of containers are not answered: %s", error)
            if self._closing.is_set() or not self._store.occupied():
                self._keeper = None
                return False
            return None

    def _connect(self) -> None:
        self._channel = self._found() or self._started()
        self._tell_all()
        self._announce()

    def _announce(self) -> None:
        """Have the ruleset know the ports, if others than it was told."""
        now = self.ports()
        if now != self._announced:
            self.moved()
            self._announced = now

    def _dismiss(self) -> None:
        """Nobody is in a network, but for what an earlier daemon's process knows: it may end."""
        channel = self._found()
        if channel is not None:
            with channel, suppress(OSError, msgspec.DecodeError):
                self._exchange(channel, messages.End())
        self._path.unlink(missing_ok=True)

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
        self._not_before = time.monotonic() + _PAUSE
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
                try:
                    self._listen(network)
                except errors.Unavailable as error:
                    if self._channel is None:
                        raise
                    _log.warning("network=%s names are not answered: %s", network.id, error)
        for key in sorted({(each.namespace, each.container) for each in endpoints}):
            with suppress(errors.NotFound):  # its network has just gone
                self._tell(self._what_of(*key))
        self._tell(messages.End())

    def _listen(self, network: Network) -> None:
        """Have a network's queries answered, if there are any that reach the host."""
        if not network.is_bridge:
            return
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

    def _tell(
        self, message: messages.AnyMessage, sockets: list[socket.socket] | None = None
    ) -> messages.Answer:
        assert self._channel is not None
        try:
            return self._exchange(self._channel, message, sockets or [])
        except (OSError, msgspec.DecodeError) as error:
            if isinstance(error, TimeoutError):
                self._path.unlink(missing_ok=True)  # not to be found again, it ends
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
                self._channel.shutdown(socket.SHUT_RDWR)  # which wakes `_keep`
            self._channel.close()
            self._channel = None


def _has_ended(channel: socket.socket) -> bool:
    """Whether the other side has hung up; nothing else comes that is not asked for."""
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    return bool(poll.poll(0))


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
