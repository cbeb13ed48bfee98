"""What a check gives up is looked at once more: its findings are old by then."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from orlop.content import ContentStore
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.rpc import CallContext
from orlop.upkeep import Checker, Finding, Outcome, Wish, findings

_DATA = b"ballast"
_WISH = Wish(repair=True, drop=True)


class _Store:
    """One with a blob in two namespaces, of which no label says where it came from."""

    def __init__(self, root: Path, database: Database, forks: ForkServer) -> None:
        self.content = ContentStore(database, root / "content", Exchange())
        for namespace in ("one", "two"):
            with self.content.writer(namespace, "r") as writer:
                writer.write(_DATA)
                self.digest = writer.commit()
        self.path = self.content.files.blob(self.digest)
        self._checker = Checker(root, forks, database, self.content, {}, cast(Any, None))

    def damage(self) -> None:
        self.path.chmod(0o600)
        self.path.write_bytes(b"damage!")

    def mend(self) -> None:
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(_DATA)

    def check(self, meanwhile: Callable[[], None]) -> Finding:
        """`meanwhile` is done when all has been read, and nothing been mended."""
        found: list[Finding] = []

        def advance(done: int, total: int) -> None:
            if done == total:
                meanwhile()

        self._checker.run(_WISH, CallContext(), found.append, advance)
        (one,) = found
        return one

    @property
    def known(self) -> list[bool]:
        return [self.content.exists(namespace, self.digest) for namespace in ("one", "two")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[_Store]:
    forks = ForkServer(("orlop.fork.worker",))
    forks.start()
    try:
        with closing(Database(tmp_path / "metadata.db")) as database:
            yield _Store(tmp_path, database, forks)
    finally:
        forks.stop()


def test_what_is_damaged_still_is_given_up(store: _Store) -> None:
    store.damage()
    found = store.check(lambda: None)
    assert (found.kind, found.outcome) == (findings.DAMAGED_BLOB, Outcome.DROPPED)
    assert store.known == [False, False]
    assert not store.path.exists()


def test_what_was_mended_meanwhile_stays(store: _Store) -> None:
    store.damage()
    found = store.check(store.mend)
    assert (found.kind, found.outcome) == (findings.DAMAGED_BLOB, Outcome.REPAIRED)
    assert "whole again" in found.problem
    assert store.known == [True, True]
    assert store.content.read("one", store.digest) == _DATA


def test_what_is_back_stays(store: _Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it comes back at the last moment."""
    store.path.unlink()
    look = store.content.files.is_whole

    def slowly(digest: str) -> bool:
        was_whole = look(digest)
        store.mend()
        return was_whole

    monkeypatch.setattr(store.content.files, "is_whole", slowly)
    found = store.check(lambda: None)
    assert (found.kind, found.outcome) == (findings.LOST_BLOB, Outcome.REPAIRED)
    assert store.known == [True, True]
    assert store.path.read_bytes() == _DATA


def test_what_cannot_be_looked_at_stays(store: _Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.damage()

    def scarce(_: str) -> bool:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(store.content.files, "is_whole", scarce)
    found = store.check(lambda: None)
    assert (found.kind, found.outcome) == (findings.DAMAGED_BLOB, Outcome.LEFT)
    assert "too many" in found.problem
    assert store.known == [True, True]
