"""A backup of a daemon's store, made while it runs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from orlop import typed
from orlop.errors import AlreadyExists, FailedPrecondition
from orlop.fork.worker import Spawner, Worker
from orlop.rpc import CallContext
from orlop.sys.fs import sync_folder
from orlop.upkeep.bringing import marked
from orlop.upkeep.reading import Advance
from orlop.upkeep.saving import Saved

_JOB = "orlop.upkeep.saving:job"

_log = logging.getLogger(__name__)


def back_up(root: Path, target: Path, forks: Spawner, ctx: CallContext, advance: Advance) -> Saved:
    """Save the store below `root` to `target`, which is there when it is whole, and not before.

    Raises AlreadyExists when something is there, FailedPrecondition when its parent is not a
    folder or it would be part of the root, ResourceExhausted on a full disk.
    """
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
