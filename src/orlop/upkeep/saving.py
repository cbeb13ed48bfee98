"""The worker of a backup: a root of its own, as ours is at one moment, while the daemon writes on.

The files of blobs get a second name first, so that none can go; then the database is copied, as one
transaction sees it; then what it knows and has come in between gets a second name as well.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from orlop.errors import DataLoss, ResourceExhausted
from orlop.fork.worker import Report
from orlop.metadata import Transaction, access, belonging
from orlop.sys.process import be_patient
from orlop.upkeep import comparing
from orlop.upkeep.bringing import bring, cloned, copied, linked

DATABASE = "metadata.db"
WHOLE = "whole.db"
_TRIES = 3
_TOLD = 64 << 20

# What is of this host's containers, whose files are not saved, and of writes that are not finished.
_NOT_SAVED = (
    "DELETE FROM proxied_snapshots",
    "DELETE FROM snapshots",
    "DELETE FROM ingests",
    "DELETE FROM mounts",
    "DELETE FROM network_ports",
    "DELETE FROM network_addresses",
    "DELETE FROM network_endpoints",
    "DELETE FROM container_extensions",
    "DELETE FROM containers",
    "DELETE FROM sandbox_extensions",
    "DELETE FROM sandboxes",
    "DELETE FROM labels WHERE kind IN ('container', 'sandbox', 'mount', 'ingest')"
    " OR kind LIKE 'snapshot/%'",
    "DELETE FROM lease_resources WHERE type IN ('ingests', 'mounts') OR type LIKE 'snapshots/%'",
)


class Saved(msgspec.Struct, frozen=True):
    """What a backup holds; `lost` are blobs that have a record, but had no file before."""

    blobs: int
    bytes: int
    how: dict[str, int]
    lost: list[str]


def job(args: Mapping[str, Any], fds: list[int], report: Report) -> Any:
    """Entry of a worker: save the store at `args["root"]` to the new, empty folder `target`.

    `pins` begins the paths of the second names that blobs get: whoever asks removes them.
    """
    be_patient()
    root, target = Path(args["root"]), Path(args["target"])
    saving = _Saving(root, target, args["pins"], lambda *counts: report(counts))
    try:
        return msgspec.to_builtins(saving.run())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(f'no space left for the backup "{args["name"]}"') from error
        raise
    except sqlite3.Error as error:
        raise DataLoss(f"the database cannot be copied: {error}") from error


class _Saving:
    def __init__(
        self, root: Path, target: Path, pins: str, advance: Callable[[int, int], None]
    ) -> None:
        self._root = root
        self._target = target
        self._advance = advance
        self._pins = pins
        self._pinned: dict[str, Path] = {}

    def run(self) -> Saved:
        for digest in comparing.blob_sizes(self._root):
            self._pin(digest)
        for _ in range(_TRIES):
            known = self._copy_database()
            lost = [each for each in known if not self._pin(each)]
            if not lost:
                break
        self._leave_out()
        how: Counter[str] = Counter()
        total = sum(self._pinned[digest].stat().st_size for digest in known if digest not in lost)
        done = told = 0
        self._advance(0, total)
        for digest in known:
            if digest in lost:
                continue
            path = comparing.blob(self._target, digest)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            way = bring(self._pinned[digest], path, (cloned, linked, copied))
            how[way] += 1
            if way != linked.__name__:
                path.chmod(0o400)
            done += path.stat().st_size
            if done - told >= _TOLD:
                told = done
                self._advance(done, total)
        os.sync()
        return Saved(sum(how.values()), done, dict(how), lost)

    def _pin(self, digest: str) -> bool:
        """Give a blob's file a second name."""
        if digest not in self._pinned:
            path = Path(f"{self._pins}-{digest.replace(':', '-')}")
            with suppress(FileNotFoundError):
                path.hardlink_to(comparing.blob(self._root, digest))
                self._pinned[digest] = path
        return digest in self._pinned

    def _copy_database(self) -> list[str]:
        """All of the database as it is now; the digests of its blobs."""
        with (
            access.reading(self._root / DATABASE) as ours,
            closing(sqlite3.connect(self._target / WHOLE)) as copy,
        ):
            ours.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file is all of it
            return [row[0] for row in copy.execute("SELECT DISTINCT digest FROM content")]

    def _leave_out(self) -> None:
        """A database of what is saved with it, and the mark by which both know each other."""
        path = self._target / DATABASE
        shutil.copyfile(self._target / WHOLE, path)
        with closing(sqlite3.connect(path)) as database:
            for statement in _NOT_SAVED:
                database.execute(statement)
            database.commit()
            database.row_factory = sqlite3.Row
            mark = belonging.mark_of(Transaction(database))
        if mark:
            belonging.mark_folder(self._target / "content", mark)
        for each in (path, self._target / WHOLE):
            each.chmod(0o600)
