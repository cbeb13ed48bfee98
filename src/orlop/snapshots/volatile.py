"""Snapshots whose files need not survive a stop of the machine: overlayfs' option `volatile`.

No sync of the container's then reaches the disk. The kernel marks the work folder of such a mount,
never takes the mark away, and mounts no folder that has it: it cannot know whether the machine has
stopped meanwhile. A note beside it can, by the boot in which the snapshot was made: within that,
everything written is there, so the mark goes; afterwards nobody can tell what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.sys.fs import sync_filesystem
from orlop.sys.removal import remove_tree

LABEL = "containerd.io/snapshot/overlay.volatile"
"""On Prepare: "true", "" too, or "false"."""

_VALUES = {"": True, "true": True, "false": False}
_NOTE = "volatile"
_MARK = "work/work/incompat"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def wanted(labels: Mapping[str, str], default: bool) -> bool:
    """Whether labels ask for it, `default` where they say nothing; raises InvalidArgument."""
    text = labels.get(LABEL)
    if text is None:
        return default
    if text not in _VALUES:
        raise InvalidArgument(f'{LABEL} "{text}" is neither true nor false')
    return _VALUES[text]


def begin(folder: str) -> None:
    """Make the snapshot in a folder, which nobody has mounted yet, a volatile one."""
    Path(folder, _NOTE).write_text(_BOOT.read_text())


def options(folder: str) -> tuple[str, ...]:
    """What the next mount of a snapshot takes more, and make the folder ready for it.

    Raises FailedPrecondition for one that was there before the machine started.
    """
    if not _holds(folder):
        return ()
    with suppress(FileNotFoundError):
        remove_tree(Path(folder, _MARK))
    return ("volatile",)


def keep(folder: str) -> None:
    """Write what a snapshot has to disk, if nobody else would; raises as `options` does."""
    if _holds(folder):
        sync_filesystem(folder)


def _holds(folder: str) -> bool:
    note = f"{folder}/{_NOTE}"
    if not os.path.exists(note):  # noqa: PTH110 - a container waits
        return False
    if Path(note).read_text() == _BOOT.read_text():
        return True
    raise FailedPrecondition(
        f'snapshot in "{folder}" is volatile and from before this machine started: some of what '
        "was written to it is lost; remove it and what uses it, and make it anew"
    )
