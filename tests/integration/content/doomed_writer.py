"""A program that writes to a store until it is killed: `doomed_writer ROOT [POINT]`.

It prints each digest once its commit has returned. At POINT, `before:NAME` or `after:NAME` of a
step of the store, it kills itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orlop.content import ContentStore
from orlop.content.files import Files
from orlop.events import Exchange
from orlop.metadata import Database

STEPS: dict[str, tuple[type, str]] = {
    "folder": (Files, "make_ingest"),
    "publish": (Files, "publish"),
    "record": (ContentStore, "_record"),
    "drop": (Files, "drop_ingest"),
    "doom": (Files, "doom"),
}
POINTS = [f"{when}:{step}" for step in STEPS for when in ("before", "after")]
FIRST = b"first"
PIECE, PIECES = 100_000, 20


def open_store(root: Path) -> tuple[Database, ContentStore]:
    database = Database(root / "meta.db")
    store = ContentStore(database, root / "content", Exchange())
    store.reap()
    return database, store


def arm(point: str) -> None:
    """Make a step of the store deadly."""
    when, _, step = point.partition(":")
    owner, name = STEPS[step]
    original: Callable[..., Any] = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)


def tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(root: Path, point: str) -> None:
    _, store = open_store(root)
    with store.writer("ns", "first") as writer:
        writer.write(FIRST)
        first = writer.commit()
    tell(first)
    if point:
        arm(point)
    for number in range(1000):
        with store.writer("ns", f"ref-{number}", total=PIECE * PIECES) as writer:
            for _ in range(PIECES):
                writer.write(os.urandom(PIECE))
            tell(writer.commit())
        if point:
            store.delete("ns", first)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
