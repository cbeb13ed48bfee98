"""Streams that clients share: each gets all of a process's output from the moment it attaches.

A stdio URI `attach:` asks for them, and `attach+URI` for the output to go to URI as well, such as
a log; stdin `attach:` is fed by the clients. They connect to a socket of packets in the bundle.
The first byte of a packet is its stream: out of the shim 1 is standard output and 2 standard error;
into it 0 is standard input, and 0 alone ends that. The connection ends when the output does.

A client that does not read holds the process up, as a terminal or a pipe would.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from orlop.shim.files import remove
from orlop.shim.loop import Lock, Loop, Promise, Task
from orlop.shim.rest import NONE, Busy, Luggage
from orlop.shim.runc import NULL
from orlop.shim.stdio import CHUNK, Sink

SCHEME = "attach"
STDIN, STDOUT, STDERR = b"\0", b"\1", b"\2"


def inner(uri: str) -> str | None:
    """The URI that output goes to besides the clients ("" is none); None for another kind."""
    if uri.rstrip("/") == f"{SCHEME}:":
        return ""
    return uri.removeprefix(f"{SCHEME}+") if uri.startswith(f"{SCHEME}+") else None


class _Client:
    """One client: what it types is given to `hear`, an empty packet when it leaves."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        hear: Callable[[_Client, bytes], Coroutine[Any, None, None]],
    ) -> None:
        self.gone = False
        self._loop = loop
        self._connection = connection
        self._rooms: list[Promise[None]] = []  # of each stream that waits for it to read
        self._hearing = loop.spawn(self._listen(hear))

    async def _listen(self, hear: Callable[[_Client, bytes], Coroutine[Any, None, None]]) -> None:
        while not self.gone:
            fd = self._connection.fileno()
            packet = await self._loop.read(fd, CHUNK + 1)
            # That it left with output unread is told once, before what it had typed until then.
            await hear(self, packet or await self._loop.read(fd, CHUNK + 1))

    async def send(self, stream: bytes, data: bytes) -> None:
        """Wait until it is sent, or the client is gone."""
        fd = self._connection.fileno()
        while not self.gone:
            try:
                self._connection.sendmsg([stream, data])
            except BlockingIOError:
                room = self._loop.watch(fd, select.EPOLLOUT)
                self._rooms.append(room)
                try:
                    await room
                finally:
                    self._rooms.remove(room)
                    self._loop.unwatch(fd, room)
            except OSError:
                return  # it is about to be heard that it has left
            else:
                return

    def leave(self) -> None:
        if not self.gone:
            self.gone = True
            self._hearing.cancel()
            for room in self._rooms:
                room.resolve(None)
                self._loop.unwatch(self._connection.fileno(), room)
            self._connection.close()


class Hub:
    """The clients of one process, and the socket at `path` that they find it by."""

    def __init__(self, loop: Loop, path: str, listener: socket.socket) -> None:
        self._loop = loop
        self._path = path
        self._clients: list[_Client] = []
        self._target = NULL
        self._fed: Promise[None] = Promise(loop)  # input has somewhere to go, or never will
        self._feeding: Task[None] | None = None
        self._turn = Lock(loop)
        self._listener = listener
        self._accepting = loop.spawn(self._accept())

    @classmethod
    def open(cls, loop: Loop, folder: str, name: str) -> Hub:
        """Listen at the socket `name` in `folder`."""
        path = f"{folder}/{name}"
        remove(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of /proc: a socket's path holds 107 bytes only.
            listener.bind(f"/proc/self/fd/{directory}/{name}")
            listener.listen()
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        finally:
            os.close(directory)
        return cls(loop, path, listener)

    def freeze(self, luggage: Luggage) -> list[Any]:
        """What `thaw` makes it from again; Busy while there are clients."""
        if self._clients:
            raise Busy
        target = NONE if self._target == NULL else self._target
        fds = (luggage.put(fd) for fd in (self._listener.fileno(), target))
        return [self._path, *fds, self._fed.done]

    @classmethod
    def thaw(cls, loop: Loop, luggage: Luggage, state: list[Any]) -> Hub:
        path, listener, target, fed = state
        fd = luggage.claim(listener)
        self = cls(loop, path, socket.socket(fileno=None if fd == NONE else fd))
        if fd == NONE:
            self._accepting.cancel()
            self._listener.close()
        if target != NONE:
            self._target = luggage.claim(target)
        if fed:
            self._fed.resolve(None)
        return self

    async def _accept(self) -> None:
        while True:
            await self._loop.readable(self._listener.fileno())
            try:
                connection, _ = self._listener.accept()
            except OSError as error:  # it has left already, or there is no room
                await self._loop.after_failed_accept(error)
                continue
            connection.setblocking(False)
            self._clients.append(_Client(self._loop, connection, self._hear))

    async def _hear(self, client: _Client, packet: bytes) -> None:
        if not packet:
            self._clients.remove(client)
            client.leave()
        elif packet[:1] == STDIN:
            await self._fed
            async with self._turn:
                await self._feed(packet[1:])

    async def _feed(self, data: bytes) -> None:
        if not data:
            self.close_input()
        elif self._target != NULL:
            self._feeding = self._loop.spawn(self._loop.write(self._target, data))
            try:
                await self._feeding
            except OSError:
                self.close_input()  # the process has closed its stdin, or ended

    def feed_into(self, target: int) -> None:
        """Input goes to the non-blocking descriptor `target`, which is the hub's from now on."""
        self._target = target
        self._fed.resolve(None)

    def close_input(self) -> None:
        """The process gets end of file; what clients send from now on is dropped."""
        self._fed.resolve(None)
        if self._target != NULL:
            target, self._target = self._target, NULL
            if self._feeding is not None and not self._feeding.done:
                self._feeding.cancel()
            os.close(target)

    async def tell(self, stream: bytes, data: bytes) -> None:
        """Output for all who are there now."""
        for client in tuple(self._clients):
            await client.send(stream, data)

    def close(self) -> None:
        """No more output: let the clients know. Idempotent."""
        self._accepting.cancel()
        for client in self._clients:
            client.leave()
        self._clients.clear()
        if self._listener.fileno() >= 0:
            self._listener.close()
            remove(self._path)
        self.close_input()


class SharedSink(Sink):
    """A pipe whose bytes go to the clients of a hub, and on to another sink.

    Of a terminal (`copied`) they go on at once; those of a process only once it has been started,
    for runc writes its own errors to the stderr that it is given.
    """

    def __init__(
        self,
        loop: Loop,
        hub: Hub,
        stream: bytes,
        target: Sink,
        pipe: tuple[int, int],
        *,
        copied: bool,
    ) -> None:
        self._loop = loop
        self._hub = hub
        self._stream = stream
        self.target = target
        self._reader, self.fd = pipe
        self._holding = False
        if self._reader != NONE:
            os.set_blocking(self._reader, False)
        if self.fd != NULL:
            os.set_blocking(self.fd, not copied)
        if target.fd != NULL:
            os.set_blocking(target.fd, False)
        self._copy: Task[None] | None = loop.spawn(self._share()) if copied else None

    @classmethod
    def open(cls, loop: Loop, hub: Hub, stream: bytes, target: Sink, *, copied: bool) -> SharedSink:
        """With a pipe for the process, or for the copier of its terminal."""
        return cls(loop, hub, stream, target, os.pipe2(os.O_CLOEXEC), copied=copied)

    def freeze(self, luggage: Luggage) -> list[Any]:
        if self._holding or self._copy is None:
            raise Busy
        fds = (NONE if fd == NULL else fd for fd in (self._reader, self.fd))
        return [*map(luggage.put, fds), not self._copy.done]

    @classmethod
    def thaw_shared(
        cls,
        loop: Loop,
        luggage: Luggage,
        hub: Hub,
        stream: bytes,
        target: Sink,
        state: list[Any],
        *,
        copied: bool,
    ) -> SharedSink:
        """The sink that was frozen; hub and target come thawed."""
        *pipe, copying = state
        reader, writer = (luggage.claim(number) for number in pipe)
        fds = reader, NULL if writer == NONE else writer
        sink = cls(loop, hub, stream, target, fds, copied=copied)
        if sink._copy is None:
            sink._copy = loop.spawn(sink._share())
        if not copying:
            sink._copy.cancel()
        return sink

    async def _share(self) -> None:
        wanted = self.target.fd != NULL
        while data := await self._loop.read(self._reader, CHUNK):
            self._holding = True
            if wanted:
                try:
                    await self._loop.write(self.target.fd, data)
                except BrokenPipeError:
                    wanted = False  # the logger has died; the clients are here still
                except OSError:
                    pass  # lost; a disk that is full may have room again
            await self._hub.tell(self._stream, data)
            self._holding = False

    def child_has_it(self) -> None:
        self._shut()
        self._copy = self._loop.spawn(self._share())

    async def finish(self) -> None:
        self._shut()
        if self._copy is not None and not self._copy.failed:  # of one that had ended when thawed
            await self._copy
        self._close_reader()
        await self.target.finish()

    def close(self) -> None:
        if self._copy is not None:
            self._copy.cancel()
        self._shut()
        self._close_reader()
        self.target.close()

    def _close_reader(self) -> None:
        if self._reader != NONE:
            os.close(self._reader)
            self._reader = NONE

    def _shut(self) -> None:
        if self.fd != NULL:
            os.close(self.fd)
            self.fd = NULL
