"""What becomes of sandboxes whose shims cannot be reached, with shims that are made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.errors import NotFound, Unavailable
from orlop.rpc import CallContext
from orlop.rpc.reactor import Reactor
from orlop.runtime.model import Exit
from orlop.runtime.sandboxes import RunningSandbox, SandboxManager
from tests.patience import patient


class Shims:
    """Connections by the id of a bundle: `connect` does what `behave` says of it."""

    def __init__(self) -> None:
        self.on_death: list[Callable[[Any], None]] = []
        self.behave: Callable[[str], Any]
        self.forgotten: list[Any] = []
        self.released: list[Any] = []

    def connect(self, bundle: Any) -> Any:
        return self.behave(bundle.id)

    def forget(self, shim: Any) -> None:
        self.forgotten.append(shim)

    def release(self, shim: Any, bundle: Any) -> None:
        self.released.append(shim)

    def clean_up(self, bundle: Any) -> Exit:
        return Exit(137, 1, 7)


class Publisher:
    def __init__(self) -> None:
        self.topics: list[str] = []

    def publish(self, namespace: str, topic: str, event: Any) -> None:
        self.topics.append(topic)


def _nobody(_: str) -> Any:
    raise Unavailable("nobody listens")


class Sandboxes:
    """A manager, with sandboxes that have lost their shims."""

    def __init__(self, *names: str) -> None:
        self.reactor, self.shims, self.publisher = Reactor(), Shims(), Publisher()
        self.manager = SandboxManager(
            SimpleNamespace(),  # type: ignore[arg-type]
            self.shims,  # type: ignore[arg-type]
            self.publisher,  # type: ignore[arg-type]
            self.reactor,
        )
        self.lost = {name: _shim() for name in names}
        self.found = {name: self.add(name) for name in names}

    def add(self, name: str) -> RunningSandbox:
        bundle = SimpleNamespace(
            namespace="ns", id=name, path=Path("/none"), delete=lambda: None, endpoint=None
        )
        log = SimpleNamespace(close=lambda: None)
        made = RunningSandbox(bundle, self.lost[name], log)  # type: ignore[arg-type]
        self.manager._running["ns", name] = made
        return made

    def tell(self, name: str) -> None:
        self.shims.on_death[0](self.lost[name])

    def has(self, name: str) -> bool:
        try:
            self.manager.get("ns", name)
        except NotFound:
            return False
        return True

    def close(self) -> None:
        self.manager.close()
        self.reactor.close()


def _shim() -> Any:
    return SimpleNamespace(closed=threading.Event(), namespace="ns")


@pytest.fixture
def two() -> Iterator[Sandboxes]:
    made = Sandboxes("one", "two")
    yield made
    made.close()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patient(20)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_shim_that_hangs_keeps_nobody_else_unburied(two: Sandboxes) -> None:
    over = threading.Event()

    def behave(name: str) -> Any:
        if name == "one":
            over.wait()
        raise Unavailable("nobody listens")

    two.shims.behave = behave
    try:
        two.tell("one")
        two.tell("two")
        _until(lambda: not two.has("two"))
        assert two.has("one")
    finally:
        over.set()
    _until(lambda: not two.has("one"))


def test_one_that_is_told_twice_has_one_connection(two: Sandboxes) -> None:
    both = threading.Barrier(2)
    made: list[Any] = []

    def behave(name: str) -> Any:
        both.wait(patient(20))
        made.append(_shim())
        return made[-1]

    two.shims.behave = behave
    two.tell("one")
    two.tell("one")
    _until(lambda: len(two.shims.forgotten) == 2)
    kept = two.found["one"].shim
    assert kept in made
    dropped = next(each for each in made if each is not kept)
    assert two.lost["one"] in two.shims.forgotten
    assert dropped in two.shims.forgotten


def _end_when_asked(two: Sandboxes, then: Callable[[], None]) -> None:
    """The shim of the first ends for good when it is asked for anything."""
    two.shims.behave = _nobody
    shim = two.lost["one"]

    def ask(*_: Any, **__: Any) -> None:
        shim.closed.set()
        two.tell("one")
        then()

    shim.ask = ask


def test_a_shutdown_is_no_death(two: Sandboxes) -> None:
    """Its shim ends before the shutdown has gone on to take the sandbox away."""
    _end_when_asked(two, lambda: time.sleep(0.2))  # for a burial to begin
    two.manager.shutdown(CallContext(), "ns", "one")
    assert two.shims.released == [two.lost["one"]]
    assert two.publisher.topics == []
    assert not two.has("one")


def test_a_shutdown_that_comes_to_nothing_is_followed_by_a_burial(two: Sandboxes) -> None:
    def fail() -> None:
        raise Unavailable("it has died")

    _end_when_asked(two, fail)
    with pytest.raises(Unavailable):
        two.manager.shutdown(CallContext(), "ns", "one")
    _until(lambda: two.publisher.topics == ["/sandboxes/exit"])
    assert two.shims.released == []


def test_a_shutdown_waits_for_a_burial(two: Sandboxes) -> None:
    """Who shuts a sandbox down may make another of its name."""
    shim, bundle = two.lost["one"], two.found["one"].bundle
    burying, asked, deleted, may_delete = (threading.Event() for _ in range(4))

    def behave(_: str) -> Any:
        burying.set()
        asked.wait(patient(20))
        raise Unavailable("nobody listens")

    def ask(*_: Any, **__: Any) -> Any:
        asked.set()
        _until(lambda: not two.has("one"))
        threading.Timer(0.2, may_delete.set).start()

    def delete() -> None:
        may_delete.wait(patient(20))
        deleted.set()

    two.shims.behave, shim.ask = behave, ask
    bundle.delete = delete  # type: ignore[method-assign]
    two.tell("one")
    burying.wait(patient(20))
    two.manager.shutdown(CallContext(), "ns", "one")
    assert deleted.is_set()


def test_a_late_burial_leaves_another_of_the_name_alone(two: Sandboxes) -> None:
    going, may_go = threading.Event(), threading.Event()
    newer = _shim()

    def behave(_: str) -> Any:
        going.set()
        may_go.wait(patient(20))
        return newer

    two.shims.behave = behave
    older = two.found["one"]
    two.tell("one")
    going.wait(patient(20))
    two.lost["one"] = newer
    added = two.add("one")
    may_go.set()
    _until(lambda: two.shims.forgotten == [newer])
    assert older.shim is not newer
    assert not two.manager._take(older)
    assert two.manager.get("ns", "one") is added
