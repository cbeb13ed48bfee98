"""The DNS process: answers containers on the gateways of their networks, and hears the daemon.

It holds no privilege but its sockets, which the daemon makes. While it knows of containers it
stays, whether or not there is a daemon; with an empty table it ends when nobody has spoken for a
while.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from dnslib import RCODE

from orlop import __version__, typed
from orlop.network.dns import messages
from orlop.network.dns.answers import MOST, failure, respond
from orlop.network.dns.messages import Entry
from orlop.network.dns.table import Key, Table
from orlop.network.dns.upstream import HostServers, Upstreams, read_framed
from orlop.shim.loop import Loop, Task
from orlop.sys.limits import use_all_descriptors
from orlop.sys.process import CAP_SETGID, CAP_SETUID, keep_capabilities, set_no_new_privs

_NOBODY = 65534
_BATCH = 16  # datagrams of one socket before others, and the daemon, have a turn
_FORWARDED = 4096  # queries on their way to upstreams
_STREAMS = 256
_MOST_SAID, _SAID_SIZE = 1024, 600  # answers that are kept, and bytes of each with its query
_STREAM_IDLE = 10.0  # seconds
_REPORT_PAUSE = 10.0  # seconds
_decode = typed.decoder(messages.AnyMessage).decode
_encode = msgspec.json.Encoder().encode


def main(args: dict[str, Any], fds: list[int]) -> int:
    """Entry: the daemon connects to the socket `fds[0]`, whose file `fds[1]` is.

    `args["idle"]` is how many seconds it waits when it knows of no container.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # who asks by TCP may hang up, as may the log
    _leave_privileges()
    loop = Loop(Reports())
    listening = socket.socket(fileno=fds[0])
    listening.setblocking(False)
    control = Control(loop, listening, fds[1], Resolver(loop), args["idle"])
    loop.spawn(control.serve())
    loop.spawn(control.leave_when_idle())
    loop.run()
    return 0


def _leave_privileges() -> None:
    use_all_descriptors()
    keep_capabilities((CAP_SETGID, CAP_SETUID))
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)  # the capabilities go with it
    set_no_new_privs()


class Reports:
    """Writes what should not have happened to the log; not more often than it can be read."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._untold = 0

    def __call__(self, error: Exception) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        self._quiet_until = now + _REPORT_PAUSE
        if self._untold:
            error.add_note(f"{self._untold} more before this were not reported")
            self._untold = 0
        with suppress(OSError):  # nobody reads the log any more
            traceback.print_exception(error)


class Shares:
    """So many places. Nobody has more than half as many as are left, so that no few have all."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._taken: Counter[Hashable] = Counter()

    def take(self, who: Hashable) -> bool:
        """Take a place, to be given back; False if `who` is to have no more."""
        if self._taken[who] * 2 >= self._left:
            return False
        self._taken[who] += 1
        self._left -= 1
        return True

    def give(self, who: Hashable) -> None:
        """Give a place back."""
        self._left += 1
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]


class Resolver:
    """Answers on any number of sockets, each of a network."""

    def __init__(self, loop: Loop) -> None:
        self.table = Table()
        self._loop = loop
        self._host = HostServers()
        self._upstreams = Upstreams(loop)
        self._forwarded = Shares(_FORWARDED)
        self._streams = Shares(_STREAMS)
        # Answers without their numbers, in one state of the table: most is asked again and again.
        self._said: dict[tuple[str, str, bool, bytes], bytes] = {}
        self._said_in = 0

    async def datagrams(self, listening: socket.socket, network: str) -> None:
        """Answer what comes to a socket, for ever."""
        while True:
            await self._loop.readable(listening.fileno())
            for _ in range(_BATCH):
                try:
                    data, source = listening.recvfrom(MOST + 1)
                except BlockingIOError:
                    break
                except OSError:  # an answer before this one did not arrive
                    continue
                self._datagram(listening, network, data, source)

    def _respond(
        self, network: str, source: str, data: bytes, *, stream: bool
    ) -> bytes | Entry | None:
        state = self.table.state
        if state != self._said_in:
            self._said_in = state
            self._said.clear()
        asked = (network, source, stream, data[2:])
        said = self._said.get(asked)
        if said is not None:
            return data[:2] + said
        try:
            found = respond(self.table, network, source, data, stream=stream)
        except Exception as error:  # noqa: BLE001 - a defect shall cost one query only
            self._loop.report(error)
            return failure(data, RCODE.SERVFAIL)
        if isinstance(found, bytes) and len(data) + len(found) <= _SAID_SIZE:
            if len(self._said) == _MOST_SAID:
                self._said.clear()
            self._said[asked] = found[2:]
        return found

    def _datagram(self, listening: socket.socket, network: str, data: bytes, source: Any) -> None:
        found = self._respond(network, source[0], data, stream=False)
        if isinstance(found, Entry):
            self._loop.spawn(self._forward_datagram(listening, data, source, found))
        elif found is not None:
            _send(listening, found, source)

    async def _forward_datagram(
        self, listening: socket.socket, data: bytes, source: Any, asker: Entry
    ) -> None:
        _send(listening, await self._forward(data, asker, stream=False), source)

    async def _forward(self, data: bytes, asker: Entry, *, stream: bool) -> bytes:
        """What an upstream says to a query, or that it has failed."""
        servers = asker.upstreams or self._host()
        if not servers or not self._forwarded.take(asker.key):
            return failure(data, RCODE.SERVFAIL)
        try:
            found = await self._upstreams.ask(data, servers, stream=stream)
        finally:
            self._forwarded.give(asker.key)
        return found if found is not None else failure(data, RCODE.SERVFAIL)

    async def connections(self, listening: socket.socket, network: str) -> None:
        """Answer who connects to a socket, for ever; whoever has no place in the network is left
        at once.
        """
        while True:
            await self._loop.readable(listening.fileno())
            try:
                stream, source = listening.accept()
            except OSError:  # it has gone again, or there are no descriptors left
                await self._loop.sleep(0.01)
                continue
            asker = self.table.asker(network, source[0])
            if asker is None or not self._streams.take(asker.key):
                stream.close()
                continue
            stream.setblocking(False)
            turn = partial(self._framed, stream, network, source[0])
            self._loop.spawn(self._connection(stream, turn, asker.key))

    async def _connection(
        self, stream: socket.socket, answer: Callable[[], Coroutine[Any, None, bool]], who: Key
    ) -> None:
        with stream:
            try:
                while True:
                    turn = self._loop.spawn(answer())
                    if not await self._loop.within(_STREAM_IDLE, turn):
                        turn.cancel()
                        return
                    if not turn.result():
                        return
            finally:
                self._streams.give(who)

    async def _framed(self, stream: socket.socket, network: str, source: str) -> bool:
        """Answer the next query of a connection; whether there may be more."""
        data = await read_framed(self._loop, stream, MOST)
        found = self._respond(network, source, data, stream=True) if data else None
        if isinstance(found, Entry):
            assert data is not None
            found = await self._forward(data, found, stream=True)
        if found is None:
            return False
        try:
            await self._loop.write(stream.fileno(), len(found).to_bytes(2) + found)
        except OSError:
            return False
        return True


def _send(listening: socket.socket, data: bytes, source: Any) -> None:
    with suppress(OSError):  # who asked is gone, or its queue is full
        listening.sendto(data, source)


class _Sockets:
    """Those of one network, and the tasks that answer on them."""

    def __init__(self, loop: Loop, resolver: Resolver, network: str, fds: list[int]) -> None:
        self._sockets = [socket.socket(fileno=each) for each in fds]
        self._tasks: list[Task[None]] = []
        for each in self._sockets:
            each.setblocking(False)
            serve = resolver.datagrams if each.type == socket.SOCK_DGRAM else resolver.connections
            self._tasks.append(loop.spawn(serve(each, network)))

    def ports(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for udp, tcp in zip(self._sockets[::2], self._sockets[1::2], strict=True):
            found[udp.getsockname()[0]] = (udp.getsockname()[1], tcp.getsockname()[1])
        return found

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for each in self._sockets:
            each.close()


class Control:
    """The daemon's word: the last one that has connected is listened to."""

    def __init__(
        self, loop: Loop, listening: socket.socket, file: int, resolver: Resolver, idle: float
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._file = file
        self._resolver = resolver
        self._idle = idle
        self._networks: dict[str, _Sockets] = {}
        self._named: set[Key] = set()
        self._used: set[str] = set()
        self._heard = 0
        self._daemon: Task[None] | None = None

    async def serve(self) -> None:
        while True:
            await self._loop.readable(self._listening.fileno())
            with suppress(BlockingIOError):
                channel, _ = self._listening.accept()
                channel.setblocking(False)
                if self._daemon is not None:
                    self._daemon.cancel()
                self._daemon = self._loop.spawn(self._hear(channel))

    async def _hear(self, channel: socket.socket) -> None:
        with channel:
            while True:
                await self._loop.readable(channel.fileno())
                try:
                    data, fds, _, _ = socket.recv_fds(channel, messages.MAX_PACKET, 64)
                    if not data:
                        break
                    self._heard += 1
                    channel.send(_encode(self._do(_decode(data), fds)))
                except BlockingIOError:
                    continue
                except (OSError, msgspec.DecodeError):  # it is gone, or not our kind
                    break
        if not len(self._resolver.table):
            self._loop.stop()

    def _do(self, message: messages.AnyMessage, fds: list[int]) -> messages.Answer:
        table = self._resolver.table
        ports: dict[str, tuple[int, int]] = {}
        match message:
            case messages.Begin():
                self._named, self._used = set(), set()
            case messages.End():
                for key in table.keys() - self._named:
                    table.drop(key)
                for network in self._networks.keys() - self._used:
                    self._networks.pop(network).close()
            case messages.Listen(network=network):
                ports = self._listen(network, fds)
            case messages.Leave(network=network):
                if network in self._networks:
                    self._networks.pop(network).close()
            case messages.Put(entry=entry):
                self._named.add(entry.key)
                table.put(entry)
            case messages.Drop():
                table.drop((message.namespace, message.container))
        return messages.Answer(__version__, ports)

    def _listen(self, network: str, fds: list[int]) -> dict[str, tuple[int, int]]:
        self._used.add(network)
        if fds:
            if network in self._networks:
                self._networks.pop(network).close()
            self._networks[network] = _Sockets(self._loop, self._resolver, network, fds)
        return self._networks[network].ports() if network in self._networks else {}

    async def leave_when_idle(self) -> None:
        """End when there is nobody to answer, or where the daemon was told of is no more."""
        heard = -1
        while True:
            await self._loop.sleep(self._idle)
            alone = self._daemon is None or self._daemon.done
            orphan = alone and not os.fstat(self._file).st_nlink
            if orphan or (heard == self._heard and not len(self._resolver.table)):
                self._loop.stop()
                return
            heard = self._heard
