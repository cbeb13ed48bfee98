"""A backup of a daemon's store, made while it runs."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

from orlop import typed
from orlop.errors import AlreadyExists, FailedPrecondition, Unavailable
from orlop.fork.worker import Spawner, Worker
from orlop.rpc import CallContext
from orlop.sys.fs import sync_folder
from orlop.upkeep.bringing import marked
from orlop.upkeep.reading import Advance
from orlop.upkeep.saving import Saved

_JOB = "orlop.upkeep.saving:job"

_log = logging.getLogger(__name__)


class Backups:
    """Saves the store below `root`, to one place at a time."""

    def __init__(self, root: Path, forks: Spawner) -> None:
        self._root = root
        self._forks = forks
        self._saving = threading.Lock()

    def make(self, target: Path, ctx: CallContext, advance: Advance) -> Saved:
        """Save it to `target`, which is there when it is whole, and not before.

        Raises AlreadyExists when something is there, FailedPrecondition when its parent is not a
        folder or it would be part of the root, ResourceExhausted on a full disk, Unavailable while
        another backup is made.
        """
        if not self._saving.acquire(blocking=False):
            raise Unavailable("another backup is being made, try again when it has ended")
        try:
            return _back_up(self._root, target, self._forks, ctx, advance)
        finally:
            self._saving.release()


def _back_up(root: Path, target: Path, forks: Spawner, ctx: CallContext, advance: Advance) -> Saved:
    if target.exists():
        raise AlreadyExists(f'"{target}"')
    if not target.parent.is_dir():
        raise FailedPrecondition(f'backup "{target}": "{target.parent}" is no folder')
    if target.resolve().is_relative_to(root.resolve()):
        raise FailedPrecondition(f'backup "{target}" would be in the root that it is of')
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(mode=0o700)
        with marked(root / "content" / "trash") as pins:
            args = {"root": str(root), "target": str(part), "name": str(target), "pins": pins}
            with Worker(forks, _JOB, args, name="orlop-backup") as worker:
                ctx.on_cancel(worker.cancel)
                try:
                    saved = typed.convert(worker.result(lambda counts: advance(*counts)), Saved)
                finally:
                    ctx.check()
        part.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _log.info('backup "%s" holds %d blobs, %d bytes', target, saved.blobs, saved.bytes)
    return saved
