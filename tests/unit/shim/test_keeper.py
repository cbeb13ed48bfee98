"""The keeper's dealings with a hand that goes just now."""

from __future__ import annotations

import os
import traceback

from orlop.shim.keeper import EXIT, Keeper
from orlop.sys import bare


def test_news_that_a_hand_does_not_live_to_hear() -> None:
    """Its end leaves ECONNRESET behind, once, when it had not read all."""
    pid = os.fork()
    if pid == 0:
        try:
            _tell_the_dead()
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
