"""A worker that dies, or hangs, in the middle of a list: the error says what of it stays."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest

from orlop.errors import DeadlineExceeded, NotFound, OrlopError, Unavailable
from orlop.fork.client import ForkServer
from orlop.network import Kernel
from orlop.network import kernel as daemon_side
from orlop.network.operations import (
    AddAddress,
    AddLink,
    AddRoute,
    AnyOperation,
    DeleteLink,
    Route,
    SetLink,
)
from tests.daemon_fixture import Orlopd
from tests.integration.network import dying
from tests.integration.network.lab import Lab, run, snapshot
from tests.patience import patient

ROOT = Path(__file__).parents[3]
_LIST: tuple[AnyOperation, ...] = (
    AddLink(name="br7", kind="bridge", up=True),
    AddAddress(link="br7", address="10.7.0.1/24"),
    AddRoute(route=Route(destination="10.8.0.0/16", gateway="10.7.0.9")),
    AddLink(name="v7", kind="veth", peer="v8"),
)
_BAD = SetLink(name="gone", up=True)


@pytest.fixture
def orders(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Says at which of its steps a worker dies."""
    monkeypatch.setenv(dying.VARIABLE, str(tmp_path / "orders"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(daemon_side, "_JOB", "tests.integration.network.dying:worker")
    return tmp_path / "orders"


def _done() -> list[bool]:
    """Which operations of the list show."""
    shown = run("sh", "-c", "ip link; ip addr; ip route").stdout
    signs = ("br7: ", "inet 10.7.0.1/24", "10.8.0.0/16 via", "v7@")
    return [each in shown for each in signs]


def _clean(kernel: Kernel) -> None:
    kernel.apply(*(DeleteLink(name=name, missing_ok=True) for name in ("v7", "br7")))


def test_what_stays_when_a_worker_dies(orders: Path, kernel: Kernel) -> None:
    before, told = snapshot(), set()
    for steps in itertools.count():
        orders.write_text(f"worker {steps}")
        try:
            kernel.apply(*_LIST)
        except Unavailable as error:
            told.add(_check(str(error)))
        else:
            orders.unlink()
            break
        _clean(kernel)
    assert told == {0, 1, 2, 3, 4}
    _clean(kernel)
    assert snapshot() == before


def _check(text: str) -> int:
    """What the error says is so; how many operations it says are done."""
    found = re.search(r"the first (\d) of 4 operations have been done and stay", text)
    done = len(_LIST) if "it has been done, and stays" in text else int(found[1]) if found else 0
    shown = _done()
    assert shown[:done] == [True] * done
    assert not any(shown[done + 1 :])
    if done < len(_LIST):
        doubt = f"{_LIST[done].about} in the daemon's network namespace may have been done"
        assert doubt in text
    return done


def test_one_that_dies_while_it_undoes(orders: Path, kernel: Kernel) -> None:
    before, told = snapshot(), []
    for steps in itertools.count():
        orders.write_text(f"worker {steps}")
        try:
            kernel.apply(*_LIST, _BAD)
        except Unavailable as error:
            told.append(str(error))
            if "nothing of it" in told[-1]:  # it was about to say what was wrong
                assert snapshot() == before
        except NotFound:
            orders.unlink()
            break
        _clean(kernel)
    assert any("some of the first 5 of 5 operations may stay, as they" in each for each in told)
    assert "nothing of it has been done" in told[-1]
    assert snapshot() == before


def test_one_that_hangs_is_ended(
    orders: Path, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_side, "_LIMIT", patient(15))
    kernel = Kernel(forks, idle=1.0)
    kernel.links()
    pid = kernel.pid
    orders.write_text("worker 1 SIGSTOP")
    with pytest.raises(DeadlineExceeded, match=r"answered for .* seconds: the first 1 of 4 "):
        kernel.apply(*_LIST)
    Orlopd.wait_for(lambda: not Path(f"/proc/{pid}").exists())  # its end is heard a moment before
    assert _done() == [True, False, False, False]
    _clean(kernel)
    kernel.close()


def test_what_asks_only_dies_without_a_word_of_operations(orders: Path, kernel: Kernel) -> None:
    orders.write_text("worker 0")
    with pytest.raises(OrlopError, match=r"network worker \d+ died over a request: unavailable$"):
        kernel.links()
