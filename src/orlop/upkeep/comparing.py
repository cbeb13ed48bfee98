"""Files and records that do not agree, at one moment."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from orlop.erofs.folders import LAYER
from orlop.metadata import Transaction
from orlop.upkeep import findings, rows
from orlop.upkeep.findings import Finding

# Seconds after which a folder that no record knows is nobody's work in progress.
_QUIET = 24 * 3600.0
_UNKNOWN = "no record knows it"


def blob(root: Path, digest: str) -> Path:
    return root.joinpath("content", "blobs", *digest.split(":", 1))


def blob_sizes(root: Path) -> dict[str, int]:
    """Every blob that has a file, and the file's size."""
    found = {}
    for path in root.glob("content/blobs/*/*"):
        with suppress(FileNotFoundError):
            found[f"{path.parent.name}:{path.name}"] = path.stat().st_size
    return found


def layer_sizes(root: Path) -> dict[Path, int]:
    """Every layer that is kept as an image, and what is to be read of it."""
    found = {}
    for path in root.glob(f"snapshots/*/snapshots/[0-9]*/{LAYER}"):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_size
    return found


def at_odds(
    root: Path, blobs: Mapping[str, int], damaged: Collection[str], tx: Transaction
) -> Iterator[Finding]:
    """All that does not agree; `blobs` are the files as they were before the transaction.

    Of the blobs that are `damaged` more was told already.
    """
    yield from _blobs(root, blobs, damaged, tx)
    for path in root.glob("content/ingest/*"):
        if not rows.has_ingest(tx, path.name):
            yield Finding(
                kind=findings.ORPHAN_INGEST, name=path.name, path=str(path), problem=_UNKNOWN
            )
    yield from _snapshots(root, tx)
    yield from rows.at_odds(tx)


def _blobs(
    root: Path, blobs: Mapping[str, int], damaged: Collection[str], tx: Transaction
) -> Iterator[Finding]:
    known = rows.blob_sizes(tx)
    for digest, size in known.items():
        path, there = blob(root, digest), blobs.get(digest)
        if there is None and not path.exists():
            kind, problem = findings.LOST_BLOB, "its file is not there"
        elif there not in (None, size) and digest not in damaged:
            kind = findings.WRONG_SIZE
            problem = f"the file has {there} bytes, the record says {size}"
        else:
            continue
        users = rows.users_of_blob(tx, digest)
        yield Finding(kind=kind, name=digest, path=str(path), problem=problem, used_by=users)
    for digest in blobs.keys() - known.keys():
        path = blob(root, digest)
        if path.exists() and digest not in damaged:
            yield Finding(kind=findings.ORPHAN_BLOB, name=digest, path=str(path), problem=_UNKNOWN)


def _snapshots(root: Path, tx: Transaction) -> Iterator[Finding]:
    recorded = rows.snapshots(tx)
    for each in recorded:
        path = root / "snapshots" / each.snapshotter / "snapshots" / str(each.id)
        if path.parent.is_dir() and not path.exists():
            yield Finding(
                kind=findings.LOST_SNAPSHOT,
                namespace=each.namespace,
                name=each.key,
                store=each.snapshotter,
                number=each.id,
                path=str(path),
                problem="its folder is not there",
                used_by=rows.users_of_snapshot(tx, each.id),
            )
    known = {each.id for each in recorded}
    for path in root.glob("snapshots/*/snapshots/*"):
        if path.name.isdecimal() and int(path.name) not in known and _is_quiet(path):
            yield Finding(
                kind=findings.ORPHAN_SNAPSHOT,
                name=path.name,
                path=str(path),
                store=path.parent.parent.name,
                problem=_UNKNOWN,
            )


def _is_quiet(folder: Path) -> bool:
    """Whether it is there, and nothing was put right into it for a day."""
    with suppress(FileNotFoundError):
        return time.time() - folder.stat().st_mtime > _QUIET
    return False
