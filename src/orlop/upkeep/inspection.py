"""Compare what the database says with what is on disk, and blobs with their digests.

Nothing of it is changed, and no lock is held: of what looks wrong while a daemon writes, only that
is told which looks so a second time.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from orlop.fork.worker import Report
from orlop.metadata import Transaction, access
from orlop.sys.process import be_patient
from orlop.upkeep import comparing, findings, rows
from orlop.upkeep.findings import Finding
from orlop.upkeep.reading import Advance, Reading

_SECOND_LOOK = 1.0  # seconds after the first
_ERRORS = 20

Tell = Callable[[Finding], None]


class Summary(msgspec.Struct, frozen=True):
    """What was looked at."""

    blobs: int
    bytes: int
    snapshots: int


def job(args: Mapping[str, Any], fds: list[int], report: Report) -> Any:
    """Entry of a worker: inspect the store at `args["root"]`, giving way to everybody else."""
    be_patient()
    inspection = Inspection(
        Path(args["root"]),
        lambda finding: report({"finding": msgspec.to_builtins(finding)}),
        lambda done, total: report({"bytes": [done, total]}),
    )
    return msgspec.to_builtins(inspection.run(quick=args["quick"]))


class Inspection:
    """One look at the store below `root`."""

    def __init__(self, root: Path, tell: Tell, advance: Advance) -> None:
        self._root = root
        self._database = root / "metadata.db"
        self._tell = tell
        self._advance = advance

    def run(self, *, quick: bool = False) -> Summary:
        """Look at everything; with `quick`, blobs are not read."""
        blobs = comparing.blob_sizes(self._root)
        damaged = set() if quick else set(self._read(blobs))
        snapshots = 0
        try:
            with self._reading() as tx:
                for problem in _integrity(tx):
                    self._tell_of_database(problem)
                snapshots = rows.count_snapshots(tx)
            self._compare(damaged)
        except sqlite3.DatabaseError as error:
            self._tell_of_database(str(error))
        return Summary(len(blobs), sum(blobs.values()), snapshots)

    def _compare(self, damaged: set[str]) -> None:
        first = self._at_odds(damaged)
        if not first:
            return
        time.sleep(_SECOND_LOOK)
        again = set(self._at_odds(damaged))
        for finding in first:
            if finding in again:
                self._tell(finding)

    def _at_odds(self, damaged: set[str]) -> list[Finding]:
        # Files come before their records and go after them.
        blobs = comparing.blob_sizes(self._root)
        with self._reading() as tx:
            return list(comparing.at_odds(self._root, blobs, damaged, tx))

    @contextmanager
    def _reading(self) -> Iterator[Transaction]:
        """The database as it is now, whoever writes to it."""
        with access.reading(self._database) as connection:
            connection.row_factory = sqlite3.Row
            connection.isolation_level = None
            connection.execute("BEGIN")
            yield Transaction(connection)

    def _tell_of_database(self, problem: str) -> None:
        path = str(self._database)
        self._tell(Finding(kind=findings.DATABASE, name=path, path=path, problem=problem))

    # What has a digest

    def _read(self, blobs: Mapping[str, int]) -> Iterator[str]:
        """Hash all blobs and layers, and tell of those that are not what they were; the blobs."""
        layers = comparing.layer_sizes(self._root)
        reading = Reading(sum(blobs.values()) + sum(layers.values()), self._advance)
        for digest, size in blobs.items():
            with suppress(FileNotFoundError):  # it has gone meanwhile
                if problem := reading.blob(comparing.blob(self._root, digest), digest):
                    self._tell_of_damage(digest, problem)
                    yield digest
            reading.passed(size)
        for path, size in layers.items():
            with suppress(FileNotFoundError):
                if problem := reading.layer(path):
                    self._tell_of_layer(path, problem)
            reading.passed(size)
        reading.end()

    def _tell_of_layer(self, path: Path, problem: str) -> None:
        with suppress(sqlite3.DatabaseError), self._reading() as tx:
            snapshot = rows.snapshot(tx, int(path.parent.name))
            if snapshot is not None:  # else it is garbage
                self._tell(
                    Finding(
                        kind=findings.DAMAGED_LAYER,
                        namespace=snapshot.namespace,
                        name=snapshot.key,
                        store=snapshot.snapshotter,
                        number=snapshot.id,
                        path=str(path),
                        problem=problem,
                        used_by=rows.users_of_snapshot(tx, snapshot.id),
                    )
                )

    def _tell_of_damage(self, digest: str, problem: str) -> None:
        users: tuple[str, ...] = ()
        with suppress(sqlite3.DatabaseError), self._reading() as tx:
            users = rows.users_of_blob(tx, digest)
        self._tell(
            Finding(
                kind=findings.DAMAGED_BLOB,
                name=digest,
                path=str(comparing.blob(self._root, digest)),
                problem=problem,
                used_by=users,
            )
        )


def _integrity(tx: Transaction) -> Iterator[str]:
    """What SQLite itself finds."""
    for row in tx.all(f"PRAGMA integrity_check({_ERRORS})"):
        if row[0] != "ok":
            yield str(row[0])
    for row in tx.all("PRAGMA foreign_key_check"):
        yield f'a row of "{row[0]}" refers to one of "{row[2]}" that is not there'
