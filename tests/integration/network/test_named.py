"""Named network namespaces and who takes them, while they are given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.events import Exchange
from orlop.metadata import Database, Transaction
from orlop.metadata.references import attach_to_lease
from orlop.network import PinnedNamespaces
from orlop.network.named import RESOURCE, NamedNamespaces

pytestmark = pytest.mark.root

_KEY = ("test", "lab")
_PINS = "orlop.network.namespaces.PinnedNamespaces"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "meta.db")) as made:
        with made.write() as tx:
            tx.execute("INSERT INTO namespaces VALUES ('test')")
            tx.execute("INSERT INTO leases VALUES ('test', 'first', 1), ('test', 'second', 1)")
        yield made


@pytest.fixture
def named(pins: PinnedNamespaces, database: Database) -> NamedNamespaces:
    """With one that was made for a lease."""
    made = NamedNamespaces(pins, database, Exchange())
    made.create(*_KEY, {}, lease="first")
    return made


def test_who_leases_one_that_is_there_keeps_it(named: NamedNamespaces, database: Database) -> None:
    found: list[str] = []

    def lease() -> None:
        with database.write() as tx:
            found.extend(named.pins.names("test"))
            attach_to_lease(tx, "test", "second", RESOURCE, "lab")

    leasing = threading.Thread(target=lease)

    def dead(tx: Transaction, namespace: str, name: str) -> bool:
        leasing.start()
        leasing.join(0.5)  # it waits, unless it is too early
        return True

    removed = named.collect([_KEY], dead)
    leasing.join()
    assert named.pins.names("test") == found == []
    assert removed == 1


def test_what_is_kept_stays(named: NamedNamespaces) -> None:
    assert named.collect([_KEY], lambda *_: False) == 0
    assert [each.name for each in named.list("test")] == ["lab"]
    assert named.collect([_KEY, _KEY], lambda *_: True) == 1
    assert named.list("test") == []


def test_one_that_was_half_given_up_is_forgotten_at_the_start(
    named: NamedNamespaces, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(tx: Transaction, kind: str, namespace: str, owner: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("orlop.metadata.labels.remove", killed)
        with pytest.raises(KeyboardInterrupt):
            named.collect([_KEY], lambda *_: True)
    named.reap()
    with pytest.raises(NotFound):
        named.delete(*_KEY)
    with database.read() as tx:
        assert tx.one("SELECT 1 FROM labels WHERE kind = 'netns'") is None


def test_a_namespace_that_is_there_again_keeps_what_it_has(
    named: NamedNamespaces, database: Database
) -> None:
    """It is heard late that it had gone, or not at all."""
    named.leave_namespace("test")
    named.leave_gone()
    assert [each.name for each in named.list("test")] == ["lab"]
    with database.write() as tx:
        for table in ("lease_resources", "leases", "namespaces"):
            tx.execute(f"DELETE FROM {table}")
    named.leave_gone()
    assert named.list("test") == []


def test_one_that_the_host_does_not_let_go_of_keeps_no_other(
    named: NamedNamespaces, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    named.create("test", "two", {})
    with database.write() as tx:
        for table in ("lease_resources", "leases", "namespaces"):
            tx.execute(f"DELETE FROM {table}")
    delete = named.pins.delete

    def busy(namespace: str, name: str) -> None:
        if name == "lab":
            raise FailedPrecondition("busy")
        delete(namespace, name)

    with monkeypatch.context() as patch:
        patch.setattr(named.pins, "delete", busy)
        named.leave_gone()
    assert [each.name for each in named.list("test")] == ["lab"]
    named.leave_gone()
    assert named.list("test") == []


@pytest.mark.parametrize("at", ["orlop.metadata.labels.replace", f"{_PINS}.create"])
def test_one_that_was_half_made_is_no_more_at_the_next_start(
    named: NamedNamespaces, database: Database, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A pin that no record knows would stay for good."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for each in (at, "orlop.metadata.labels.remove", f"{_PINS}.delete"):  # nor is it undone
            patch.setattr(each, killed)
        with pytest.raises(KeyboardInterrupt):
            named.create("test", "two", {"a": "b"}, lease="first")
    named.reap()
    assert named.pins.names("test") == ["lab"]
    with database.read() as tx:
        assert tx.one("SELECT 1 FROM labels WHERE owner = 'two'") is None


def test_one_that_could_not_be_made_leaves_nothing(
    named: NamedNamespaces, database: Database
) -> None:
    for name, error in (("lab", AlreadyExists), ("no such", InvalidArgument), ("x", NotFound)):
        with pytest.raises(error):
            named.create("test", name, {"a": "b"}, lease="none" if name == "x" else "second")
    (named.pins.folder / "test" / "two").mkdir()
    with pytest.raises(OSError, match="two"):
        named.create("test", "two", {"a": "b"}, lease="second")
    with database.read() as tx:
        assert len(tx.all("SELECT * FROM lease_resources")) == 1
        assert len(tx.all("SELECT * FROM labels")) == 1
    (named.pins.folder / "test" / "two").rmdir()
