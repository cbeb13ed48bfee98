from __future__ import annotations

import os
import socket
import threading
import time

from orlop.rpc.reactor import Reactor


def test_timers_run_in_order_and_can_be_cancelled() -> None:
    reactor = Reactor()
    log: list[str] = []
    held, go, done = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(20)

    reactor.call_later(0, hold)  # none runs before all are there
    assert held.wait(20)
    reactor.call_later(-100, done.set)
    reactor.call_later(-200, lambda: log.append("third"))
    reactor.call_later(-400, lambda: log.append("first"))
    reactor.call_later(-350, lambda: log.append("never")).cancel()
    reactor.call_later(-300, lambda: log.append("second"))
    go.set()
    assert done.wait(5)
    reactor.close()
    assert log == ["first", "second", "third"]


def test_a_timer_in_the_far_future_harms_nobody() -> None:
    reactor = Reactor()
    reactor.call_later(0.02, lambda: None)
    reactor.call_later(3_600_000, lambda: None)  # more than epoll can wait for
    time.sleep(0.1)
    done = threading.Event()
    reactor.call_later(0, done.set)
    assert done.wait(5)
    reactor.close()


def test_an_action_that_fails_does_not_end_the_others() -> None:
    def broken() -> None:
        raise ValueError

    reactor = Reactor()
    done = threading.Event()
    reactor.call_later(0, broken)
    reactor.call_later(0.01, done.set)
    assert done.wait(5)
    reactor.close()


def test_readable_until_unregistered() -> None:
    reactor = Reactor()
    ours, theirs = socket.socketpair()
    got: list[bytes] = []
    arrived, gone = threading.Event(), threading.Event()

    def read() -> None:
        got.append(ours.recv(10))
        arrived.set()

    reactor.register(ours, read)
    theirs.send(b"a")
    assert arrived.wait(5)
    reactor.unregister(ours, gone.set)
    assert gone.wait(5)
    theirs.send(b"b")
    time.sleep(0.05)
    reactor.close()
    assert got == [b"a"]
    ours.close()
    theirs.close()


def test_after_close_sockets_are_still_let_go_and_no_stranger_is_written_to() -> None:
    reactor = Reactor()
    reactor.close()
    # The next pipe gets the descriptors that the reactor had.
    pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(5)]
    ours, theirs = socket.socketpair()
    reactor.register(ours, lambda: None)
    reactor.unregister(ours, ours.close)
    assert ours.fileno() < 0
    theirs.close()
    for read, write in pipes:
        try:
            assert not os.read(read, 1)
        except BlockingIOError:
            pass
        os.close(read)
        os.close(write)


def test_timers_that_are_cancelled_do_not_pile_up() -> None:
    reactor = Reactor()
    kept = [reactor.call_later(3600, lambda: None) for _ in range(10)]
    for _ in range(20_000):
        reactor.call_later(3600, lambda: None).cancel()
    assert len(reactor._timers) < 2_000
    assert all(any(each[2] is timer for each in reactor._timers) for timer in kept)
    reactor.close()
