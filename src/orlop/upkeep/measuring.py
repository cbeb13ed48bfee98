"""What a root takes of the disk, by what it is for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from orlop.fork.worker import Report
from orlop.sys.process import be_patient

_BLOCK = 512
_CONTENT = {"blobs": "blobs", "ingest": "writes begun", "damaged": "damaged", "trash": "trash"}
_DATABASE = "metadata.db"


class Taken(msgspec.Struct, frozen=True):
    """What something takes: files, bytes as they are read, bytes of disk blocks with folders'."""

    kind: str
    files: int
    size: int
    on_disk: int


def job(args: Mapping[str, Any], fds: list[int], report: Report) -> Any:
    """Entry of a worker: measure the root `args["root"]`."""
    be_patient()
    return msgspec.to_builtins(measure(Path(args["root"])))


def measure(root: Path) -> list[Taken]:
    """What everything below a root takes; a file of several names counts where it comes first."""
    seen: set[tuple[int, int]] = set()
    return [_taken(kind, paths, seen) for kind, paths in _kinds(root)]


def _kinds(root: Path) -> Iterator[tuple[str, list[Path]]]:
    for folder, kind in _CONTENT.items():
        yield kind, [root / "content" / folder]
    for path in sorted(root.glob("snapshots/*")):
        yield f"snapshots of {path.name}", [path]
    databases = sorted(root.glob(f"{_DATABASE}*"))
    yield "database", databases
    yield "logs", [root / "logs"]
    known = {root / "content", root / "snapshots", root / "logs", *databases}
    yield "other", sorted(set(root.iterdir()) - known)


def _taken(kind: str, paths: list[Path], seen: set[tuple[int, int]]) -> Taken:
    files = size = on_disk = 0
    waiting = [os.fspath(path) for path in paths]
    while waiting:
        path = waiting.pop()
        with suppress(FileNotFoundError, NotADirectoryError):
            about = os.lstat(path)
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            on_disk += about.st_blocks * _BLOCK
            if stat.S_ISDIR(about.st_mode):
                if not os.path.ismount(path):  # of a container that runs
                    waiting += [entry.path for entry in os.scandir(path)]
            else:
                files += 1
                size += about.st_size
    return Taken(kind, files, size, on_disk)
