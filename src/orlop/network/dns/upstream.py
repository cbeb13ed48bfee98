"""Other name servers: asked one after another, and believed only if they answer what was asked."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dnslib import RCODE

from orlop.network.dns.answers import HEADER, question
from orlop.network.resolvconf import OF_HOST, servers_in
from orlop.shim.loop import Loop, Promise, Task

_PORT = 53
_STEP = 1.0  # seconds until the next one is asked as well
_ROUNDS = 2
_LIMIT = 4.5  # seconds for all: resolvers ask again after five
_STREAM_LIMIT = 3.0  # seconds for each by TCP
_LOOK_AGAIN = 2.0  # seconds
_MAX = 65535
_USELESS = (RCODE.SERVFAIL, RCODE.NOTIMP, RCODE.REFUSED)
"""After these another one is asked."""


class HostServers:
    """The name servers of the host, read again when its file has changed."""

    def __init__(self, path: Path = OF_HOST, *, every: float = _LOOK_AGAIN) -> None:
        self._path = path
        self._every = every
        self._found: tuple[str, ...] = ()
        self._stamp = (0, 0)
        self._looked = -every

    def __call__(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._looked >= self._every:
            self._looked = now
            with suppress(OSError):
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_ino)
                if stamp != self._stamp:
                    self._stamp, self._found = stamp, tuple(servers_in(self._path))
        return self._found


class Upstreams:
    """Asks name servers; what comes back is theirs but for the number of the query."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    async def ask(self, query: bytes, servers: Sequence[str], *, stream: bool) -> bytes | None:
        """The answer of the first that has one, by TCP with `stream`; None if nobody has."""
        search = _Search(self._loop, query, stream=stream)
        try:
            found = await search.run(servers)
        finally:
            search.close()
        return query[:2] + found[2:] if found is not None else None


class _Search:
    """One query on its way. Who was asked may still answer while the next one is asked."""

    def __init__(self, loop: Loop, query: bytes, *, stream: bool) -> None:
        self._loop = loop
        self._stream = stream
        self._number = os.urandom(2)
        self._query = self._number + query[2:]
        self._question = question(query).lower()
        self._answer: bytes | None = None
        self._useless: bytes | None = None
        self._tasks: list[Task[None]] = []

    async def run(self, servers: Sequence[str]) -> bytes | None:
        end = time.monotonic() + _LIMIT
        step = _STREAM_LIMIT if self._stream else _STEP
        for server in [*servers] * (1 if self._stream else _ROUNDS):
            task = self._loop.spawn(self._ask(server))
            self._tasks.append(task)
            await self._loop.within(min(step, end - time.monotonic()), self._news(task))
            if self._answer is not None:
                return self._answer
            if self._useless is not None and len(self._tasks) >= len(servers):
                return self._useless
        while self._answer is None and time.monotonic() < end:
            waiting = [each for each in self._tasks if not each.done]
            if not waiting:
                break
            await self._loop.within(end - time.monotonic(), self._news(*waiting))
        return self._answer or self._useless

    def _news(self, *tasks: Task[None]) -> Promise[None]:
        """Done with any of the tasks, or of those asked before."""
        news: Promise[None] = Promise(self._loop)
        for each in {*tasks, *(each for each in self._tasks if not each.done)}:
            each.subscribe(news.resolve_from)
        return news

    def close(self) -> None:
        for each in self._tasks:
            each.cancel()

    async def _ask(self, server: str) -> None:
        """Ask one, and keep what it says; what else it sends does not count."""
        try:
            with _socket(server, stream=self._stream) as asking:
                found = await (self._by_tcp(asking) if self._stream else self._by_udp(asking))
        except OSError:
            return  # nobody there, which the kernel tells at once
        if found is None:
            return
        if found[3] & 0x0F in _USELESS:
            self._useless = self._useless or found
        else:
            self._answer = self._answer or found

    async def _by_udp(self, asking: socket.socket) -> bytes:
        asking.send(self._query)
        while True:
            await self._loop.readable(asking.fileno())
            with suppress(BlockingIOError):
                data = asking.recv(_MAX)
                if self._answers(data):
                    return data

    async def _by_tcp(self, asking: socket.socket) -> bytes | None:
        await self._loop.writable(asking.fileno())
        if number := asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
        await self._loop.write(asking.fileno(), len(self._query).to_bytes(2) + self._query)
        data = await read_framed(self._loop, asking)
        return data if data is not None and self._answers(data) else None

    def _answers(self, data: bytes) -> bool:
        """Whether this is the answer to what was asked (RFC 5452, 9.1)."""
        if len(data) < HEADER or data[:2] != self._number or not data[2] & 0x80:
            return False
        if data[4:6] == b"\0\0":  # some tell of errors without the question
            return data[3] & 0x0F not in (RCODE.NOERROR, RCODE.NXDOMAIN)
        return question(data).lower() == self._question


def _socket(server: str, *, stream: bool) -> socket.socket:
    """A socket of its own for each query: any port, and heard only from that server."""
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        with suppress(BlockingIOError):
            made.connect((server, _PORT))
    except BaseException:
        made.close()
        raise
    return made


async def read_framed(loop: Loop, stream: socket.socket, most: int = _MAX) -> bytes | None:
    """The next message of a stream, behind two bytes of length; None at its end, or if it is to be
    of more than `most` bytes.
    """
    head = await _exactly(loop, stream, 2)
    size = int.from_bytes(head or b"")
    return await _exactly(loop, stream, size) if head and size <= most else None


async def _exactly(loop: Loop, stream: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = await loop.read(stream.fileno(), size - len(data))
        if not piece:
            return None
        data += piece
    return data
