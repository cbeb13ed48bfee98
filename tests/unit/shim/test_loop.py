"""The event loop: promises, tasks, locks, timers, descriptors."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.shim.attach import Hub
from orlop.shim.loop import Lock, Loop, Promise, Stopped
from orlop.shim.server import Server
from tests.patience import patient


def run(loop: Loop, coroutine: Coroutine[Promise[Any], None, Any]) -> Any:
    """Run the loop until a coroutine is done; its result."""

    async def main() -> Any:
        try:
            return await coroutine
        finally:
            loop.stop()

    task = loop.spawn(main())
    loop.run()
    return task.result()


@pytest.fixture
def reported() -> list[Exception]:
    return []


@pytest.fixture
def loop(reported: list[Exception]) -> Iterator[Loop]:
    loop = Loop(reported.append)
    yield loop
    loop.close()


def test_many_await_one_promise(loop: Loop) -> None:
    promise: Promise[int] = Promise(loop)

    async def wait() -> int:
        return await promise

    async def main() -> list[int]:
        tasks = [loop.spawn(wait()) for _ in range(3)]
        await loop.sleep(0.01)
        promise.resolve(7)
        promise.resolve(8)  # the first value stays
        return [await task for task in tasks] + [await promise]

    assert run(loop, main()) == [7, 7, 7, 7]


def test_an_error_reaches_who_awaits(loop: Loop, reported: list[Exception]) -> None:
    async def fail() -> None:
        await loop.sleep(0)
        raise ValueError("x")

    async def main() -> str:
        try:
            await loop.spawn(fail())
        except ValueError as error:
            return str(error)
        return ""

    assert run(loop, main()) == "x"
    assert not reported


def test_an_error_that_nobody_awaits_is_reported(loop: Loop, reported: list[Exception]) -> None:
    async def fail() -> None:
        raise ValueError("y")

    async def main() -> None:
        loop.spawn(fail())
        await loop.sleep(0.01)

    run(loop, main())
    assert [str(error) for error in reported] == ["y"]


def test_cancel_runs_the_finally_at_once(loop: Loop) -> None:
    seen: list[str] = []
    reader, writer = os.pipe()

    async def wait() -> None:
        try:
            await loop.readable(reader)
        except Stopped:
            seen.append("stopped")
            raise
        finally:
            os.close(reader)

    async def main() -> None:
        task = loop.spawn(wait())
        await loop.sleep(0.01)
        task.cancel()
        assert task.done
        assert seen == ["stopped"]
        task.cancel()  # no effect
        again, _ = os.pipe()
        os.dup2(again, reader)  # the same number: nothing of the old watch is left
        assert not await loop.within(0.01, loop.spawn(loop.readable(reader)))

    run(loop, main())
    os.close(writer)


def test_within_ends_at_the_first_of_both(loop: Loop) -> None:
    async def main() -> tuple[bool, bool]:
        promise: Promise[None] = Promise(loop)
        late = await loop.within(0.02, promise)
        loop.spawn(resolve(promise))
        started = time.monotonic()
        soon = await loop.within(60, promise)
        assert time.monotonic() - started < patient(10)
        return late, soon

    async def resolve(promise: Promise[None]) -> None:
        await loop.sleep(0.01)
        promise.resolve(None)

    assert run(loop, main()) == (False, True)


def test_a_lock_serves_in_order(loop: Loop) -> None:
    lock, order = Lock(loop), list[int]()

    async def hold(number: int) -> None:
        async with lock:
            await loop.sleep(0.002)
            order.append(number)

    async def main() -> None:
        tasks = [loop.spawn(hold(number)) for number in range(5)]
        for task in tasks:
            await task

    run(loop, main())
    assert order == [0, 1, 2, 3, 4]


def test_timers_fire_in_order(loop: Loop) -> None:
    order: list[float] = []

    async def sleep(seconds: float) -> None:
        await loop.sleep(seconds)
        order.append(seconds)

    async def main() -> None:
        # Passed already, and far from each other: how long it takes to set them does not matter.
        for task in [loop.spawn(sleep(seconds)) for seconds in (-100, -300, -200)]:
            await task

    run(loop, main())
    assert order == [-300, -200, -100]


def test_writing_waits_for_a_reader(loop: Loop) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    data = os.urandom(300_000)

    async def send() -> None:
        await loop.write(writer, data)
        os.close(writer)

    async def main() -> bytes:
        loop.spawn(send())
        got = b""
        while part := await loop.read(reader, 10_000):
            got += part
        return got

    assert run(loop, main()) == data
    os.close(reader)


def test_a_regular_file_is_always_ready(loop: Loop) -> None:
    async def main(fd: int) -> bytes:
        return await loop.read(fd, 5)

    with Path(__file__).open("rb") as file:
        assert run(loop, main(file.fileno())) == b'"""Th'


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_client_waits_while_there_is_no_descriptor(
    loop: Loop, tmp_path: Path, kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the loop sleeps meanwhile, although somebody knocks."""
    turns = 0
    poll = loop._poll

    def counted() -> None:
        nonlocal turns
        turns += 1
        poll()

    monkeypatch.setattr(loop, "_poll", counted)
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.setblocking(False)
    server: Server | Hub
    if kind == socket.SOCK_STREAM:
        server = Server(loop, listener, lambda *_: pytest.fail("no call"), on_connect=lambda: None)
    else:
        server = Hub(loop, str(tmp_path / "s"), listener)
    client = socket.socket(socket.AF_UNIX, kind)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what other tests have left open must not make room later
    free = os.dup(0)
    os.close(free)

    async def main() -> tuple[int, float]:
        began = time.monotonic()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            client.connect(str(tmp_path / "s"))
            await loop.sleep(0.5)
            found = turns, time.monotonic() - began
            assert not (server._connections if isinstance(server, Server) else server._clients)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while not (server._connections if isinstance(server, Server) else server._clients):
            await loop.sleep(0.01)
        return found

    with client:
        counted_turns, passed = run(loop, main())
    assert counted_turns <= 20 * passed + 5
    if isinstance(server, Hub):
        server.close()
    else:
        server.stop_accepting()


def test_what_a_client_typed_is_heard_though_it_left_with_output_unread(
    loop: Loop, tmp_path: Path
) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.setblocking(False)
    hub = Hub(loop, str(tmp_path / "s"), listener)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    async def main() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(tmp_path / "s"))
            while not hub._clients:
                await loop.sleep(0.01)
            await hub.tell(b"\1", b"for nobody")
            client.send(b"\0first ")
            client.send(b"\0last")
        hub.feed_into(writer)
        while hub._clients:
            await loop.sleep(0.01)
        hub.close()

    run(loop, main())
    with os.fdopen(reader, "rb") as found:
        assert found.read() == b"first last"


def test_a_descriptor_that_cannot_be_watched_is_watched_later() -> None:
    loop = Loop(lambda error: pytest.fail(str(error)))
    epoll, reader, writer = loop._epoll, *os.pipe2(os.O_NONBLOCK)

    def scarce(*_: int) -> None:
        raise OSError(errno.ENOSPC, "too many")

    async def read() -> bytes:
        loop._epoll = SimpleNamespace(  # type: ignore[assignment]
            register=scarce, modify=epoll.modify, unregister=epoll.unregister
        )
        with pytest.raises(OSError, match="too many"):
            await loop.read(reader, 10)
        loop._epoll = epoll
        reading = loop.spawn(loop.read(reader, 10))
        await loop.sleep(0)
        os.write(writer, b"x")
        return await reading

    try:
        assert run(loop, read()) == b"x"
    finally:
        loop.close()
        os.close(reader)
        os.close(writer)
