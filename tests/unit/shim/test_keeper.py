"""The keeper's dealings with a hand that goes just now."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.shim.children import CONFIRMED, Children
from orlop.shim.keeper import EXIT, Awakening, Ended, Keeper, Rest, leave
from orlop.shim.loop import Loop
from orlop.shim.main import Hand
from orlop.sys import bare


def test_news_that_a_hand_does_not_live_to_hear() -> None:
    """Its end leaves ECONNRESET behind, once, when it had not read all."""
    _in_a_process(_tell_the_dead)


def _in_a_process(test: Callable[[], None]) -> None:
    """A keeper adopts orphans and takes signals: not in the test runner."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(100)
            test()
        except BaseException:  # noqa: BLE001 - this process must not go on as a test runner
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def _tell_the_dead() -> None:
    keeper = Keeper(lambda _: 0, lambda *_: 0)
    ours, theirs = bare.seqpacket_pair()
    ours.send(EXIT.pack(1, 0, 0))
    theirs.close()
    keeper._news = [EXIT.pack(2, 0, 0)]
    keeper._tell(ours)
    assert keeper._news


ORPHANS = "i=0; while [ $i -lt 100 ]; do sleep 0.2 & i=$((i+1)); done"


def test_exits_that_a_hand_knows_of_are_not_remembered() -> None:
    """Of any number, however long it works; and the next one is told of what it did not hear."""
    _in_a_process(_keep_many)


def _keep_many() -> None:
    count = 5 * CONFIRMED
    keeper = Keeper(lambda start: _hear(start, count), lambda *_: 0)
    most = 0
    remember = keeper._keep

    def keep(ended: Ended) -> None:
        nonlocal most
        remember(ended)
        most = max(most, len(keeper._ended))

    keeper._keep = keep  # type: ignore[method-assign]
    assert keeper.run([]) == 0
    assert CONFIRMED <= most < 4 * CONFIRMED


def _hear(start: Awakening, count: int) -> int:
    """Be a hand that has orphans end, and rests before it hears of the last; 0 if all is well."""
    if start.state:
        return 0 if [str(each.pid).encode() for each in start.ended] == [start.state] else 1
    loop = Loop(_raise)
    children = Children(loop, start.control, lambda: None)

    async def work() -> None:
        while children.told < count:
            os.posix_spawn("/bin/sh", ["sh", "-c", ORPHANS], {})
            await loop.sleep(0.5)
        loop.stop()

    loop.spawn(work())
    loop.run()
    pid = _orphan()
    time.sleep(0.2)
    leave(start.control, Rest(str(pid).encode(), [], {}, [pid], children.told))
    return 0


def _orphan() -> int:
    """The pid of a grandchild that ends at once."""
    reader, writer = os.pipe()
    if not os.fork():
        pid = os.fork()
        if pid:
            os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 20))
    os.close(reader)
    return pid


def _raise(error: Exception) -> None:
    raise error


def test_a_state_that_cannot_be_sent_leaves_the_hand_as_it_was() -> None:
    ours, theirs = bare.seqpacket_pair()
    ours.setblocking(False)
    theirs.close()
    with pytest.raises(BrokenPipeError):
        leave(ours, Rest(b"state", [], {}, [], 0))
    assert not ours.getblocking()
    ours.close()


def test_a_hand_that_cannot_leave_stays() -> None:
    ours, theirs = bare.seqpacket_pair()
    theirs.close()
    told: list[Any] = []
    loop = SimpleNamespace(
        report=told.append, when_idle=lambda seconds, callback: told.append(seconds)
    )
    hand = SimpleNamespace(_control=ours, _loop=loop, _patience=1.0, _rest=None)
    hand._freeze = lambda luggage: Rest(b"state", luggage.fds, {}, [], 0)
    Hand._rest(hand)  # type: ignore[arg-type]
    assert isinstance(told[0], BrokenPipeError)
    assert told[1] == 2.0
    ours.close()
