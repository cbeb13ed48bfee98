"""Signals to children, and to no stranger that has got a child's number."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from orlop.shim.children import Children, send_signal
from orlop.shim.keeper import Ended
from orlop.shim.loop import Loop
from orlop.sys import bare
from orlop.sys.process import mark


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A child of ours, with one of its own, whose pid it says."""
    script = "sleep 100 & echo $!; wait"
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, text=True, process_group=0
    ) as made:
        yield made
        os.killpg(made.pid, signal.SIGKILL)


def _told(parent: subprocess.Popen[str]) -> int:
    assert parent.stdout is not None
    return int(parent.stdout.readline())


def test_a_stranger_gets_none(parent: subprocess.Popen[str]) -> None:
    theirs = _told(parent)
    for to_group in (False, True):
        with pytest.raises(ProcessLookupError):
            send_signal(theirs, signal.SIGKILL, to_group=to_group)
    assert mark(theirs)


def test_a_child_gets_it_and_its_group_if_that_is_meant(parent: subprocess.Popen[str]) -> None:
    theirs = _told(parent)
    send_signal(parent.pid, signal.SIGTERM)
    assert parent.wait(10) == -signal.SIGTERM
    assert mark(theirs)
    with pytest.raises(ProcessLookupError):
        send_signal(parent.pid, signal.SIGTERM)
    with subprocess.Popen(["sleep", "100"], process_group=0) as other:
        send_signal(other.pid, signal.SIGKILL, to_group=True)
        assert other.wait(10) == -signal.SIGKILL
    with subprocess.Popen(["sleep", "100"]) as ungrouped:
        send_signal(ungrouped.pid, signal.SIGKILL, to_group=True)
        assert ungrouped.wait(10) == -signal.SIGKILL


@pytest.fixture
def children() -> Iterator[Children]:
    before = signal.getsignal(signal.SIGCHLD)
    loop = Loop(lambda _: None)
    ours, theirs = bare.seqpacket_pair()
    made = Children(loop, ours, lambda: None)
    loop.timer(0).subscribe(lambda _: loop.stop())
    loop.run()
    yield made
    loop.close()
    signal.signal(signal.SIGCHLD, before)
    ours.close()
    theirs.close()


def test_an_exit_that_comes_before_the_pid_is_known(children: Children) -> None:
    with children.expecting() as expected:
        children.take_in([Ended(7, 3 << 8, 1)])
        assert expected.exit_of(7).result() == (3, 1)
        assert not expected.exit_of(7).done


def test_an_exit_of_before_is_not_that_of_a_number_used_again(children: Children) -> None:
    """Also while another runtime hangs."""
    with children.expecting() as hanging:
        children.take_in([Ended(7, 0, 1)])
        with children.expecting() as expected:
            assert not expected.exit_of(7).done
        assert hanging.early


def test_an_exit_belongs_to_one(children: Children) -> None:
    with children.expecting() as first, children.expecting() as second:
        children.take_in([Ended(7, 0, 1)])
        assert first.exit_of(7).done
        assert not second.exit_of(7).done
