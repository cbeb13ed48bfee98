"""A database and the folders of what it tells of belong together: both bear the mark of their root.

A folder whose disk is not mounted, and a database that was deleted, look like a store of garbage:
records without files, files without records. So the marks are compared before anything is removed.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from orlop.errors import FailedPrecondition, ResourceExhausted
from orlop.metadata import labels
from orlop.metadata.database import Database, Transaction
from orlop.sys.fs import sync_folder

MARK = "root-id"
"""The file of a folder's mark."""

# The database has its own as a label.
_KIND, _KEY = "root", "id"
_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A folder with `files`, a pattern below it, that a row which `record` finds may stand for.

    A row that `owner` finds has one in any case. Without one that is `spare` all else can go on.
    """

    folder: Path
    files: str
    record: str
    owner: str
    params: tuple[str, ...] = ()
    spare: bool = False

    def is_known(self, tx: Transaction) -> bool:
        return tx.one(self.record, self.params) is not None

    def has_files(self, tx: Transaction) -> bool:
        """Whether the database says so."""
        return tx.one(self.owner, self.params) is not None

    def was_used(self) -> bool:
        """Whether it has what everybody who opens it makes, as a mount point may have too."""
        return (self.folder / self.files.partition("/")[0]).is_dir()

    def is_empty(self) -> bool:
        return next(self.folder.glob(self.files), None) is None

    def mark(self) -> str:
        try:
            return (self.folder / MARK).read_text(encoding="ascii", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""


def places(root: Path, snapshotters: Iterable[str]) -> list[Place]:
    """All that has files below a root. Blobs come with the first namespace, and may all have gone.

    That of a snapshotter need not be there while it has no snapshots.
    """
    content = Place(
        root / "content",
        "blobs/*/*",
        "SELECT 1 FROM namespaces LIMIT 1",
        "SELECT 1 FROM content LIMIT 1",
    )
    record = "SELECT 1 FROM snapshots WHERE snapshotter = ? LIMIT 1"
    return [
        content,
        *(
            Place(
                root / "snapshots" / name, "snapshots/[0-9]*", record, record, (name,), spare=True
            )
            for name in snapshotters
        ),
    ]


def mark_of(tx: Transaction) -> str:
    """The mark of a database, "" if it has none."""
    return labels.get(tx, _KIND, "", "").get(_KEY, "")


def claim(database: Database, places: Sequence[Place]) -> Mapping[Path, OSError]:
    """See that a database and its folders are of one root; those that have no mark get one.

    A root from before there were marks has a database that was used, and folders as they are made.
    Returns spare folders that cannot be used, and why: nobody has looked at what they have.
    Raises FailedPrecondition where one is there without the other: no file and no record has gone.
    """
    broken: dict[Path, OSError] = {}
    with database.read() as tx:
        own = mark_of(tx)
        used = tx.one("SELECT 1 FROM namespaces LIMIT 1") is not None
        known = {place for place in places if place.is_known(tx)}
        full = {place for place in places if place.has_files(tx)}
    marks: dict[Place, str] = {}
    for place in places:
        with _going_on(place, broken):
            marks[place] = place.mark()
    older = used and not own
    found = next(filter(None, marks.values()), "") if older else ""
    mark = own or found or secrets.token_hex(16)

    def belongs(place: Place) -> bool:
        if marks[place] == mark:
            return True
        if older and not marks[place]:
            if place in full and place.is_empty():
                return False
            return place.was_used() or place not in known
        return place not in known and place.is_empty()

    strangers = []
    for place in marks:
        with _going_on(place, broken):
            if not belongs(place):
                strangers.append(place)
    if strangers:
        if not older:
            _mark_database(database, mark)  # which the error tells
        raise FailedPrecondition(_refusal(database.path, strangers, mark))
    try:
        for place, there in marks.items():
            if there != mark and place.folder not in broken:
                with _going_on(place, broken, () if own else _FULL):
                    mark_folder(place.folder, mark)
        if not own and not (older and broken):
            _mark_database(database, mark)  # the last one, or others that have none would be lost
    except (OSError, ResourceExhausted) as error:
        if own or (isinstance(error, OSError) and error.errno not in _FULL):
            raise
        _log.warning("no room to mark that database and folders belong together: %s", error)
    return broken


@contextmanager
def _going_on(place: Place, broken: dict[Path, OSError], but: Sequence[int] = ()) -> Iterator[None]:
    """Note the error, unless it is one of `but`, of a place that all else can do without."""
    try:
        yield
    except OSError as error:
        if not place.spare or error.errno in but:
            raise
        _log.warning('"%s" cannot be used: %s', place.folder, error)
        broken[place.folder] = error


def mark_folder(folder: Path, mark: str) -> None:
    """Give a folder, which need not be there yet, a mark, durably."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = folder / f"{MARK}.new"
    try:
        with new.open("w", encoding="ascii") as file:
            file.write(f"{mark}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / MARK)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    sync_folder(folder)


def _mark_database(database: Database, mark: str) -> None:
    with database.write() as tx:
        labels.replace(tx, _KIND, "", "", {_KEY: mark})


def _refusal(database: Path, strangers: Sequence[Place], mark: str) -> str:
    missing = [place for place in strangers if place.is_empty()]
    full = [place for place in strangers if place not in missing]
    problems = []
    if missing:
        problems.append(
            f'the files that "{database}" tells of are not in {_names(missing)}: is the filesystem '
            "mounted?"
        )
    if full:
        problems.append(
            f'"{database}" does not tell of what is in {_names(full)}: was it removed, or is it '
            "another root's? put the right one, or whole.db of a backup, in its place"
        )
    folders = [shlex.quote(str(place.folder)) for place in strangers]
    files = [shlex.quote(str(place.folder / MARK)) for place in strangers]
    return (
        f"{'; '.join(problems)}. Nothing was removed; to go on all the same, and give up what is "
        f"without the other: mkdir -p {' '.join(folders)} && echo {shlex.quote(mark)} | "
        f"tee {' '.join(files)}"
    )


def _names(places: Sequence[Place]) -> str:
    return ", ".join(f'"{place.folder}"' for place in places)
