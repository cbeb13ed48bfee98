"""Where what is written to a snapshot's mounts goes to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orlop.sys.fs import sync_filesystem
from orlop.sys.mount import Mount

_UPPER = "upperdir="


def sync_written(mounts: Sequence[Mount]) -> None:
    """Have it all on disk: what is in an overlay's upper folder, or in a folder that is shown.

    Raises OSError when that fails.
    """
    for each in mounts:
        uppers = [e.removeprefix(_UPPER) for e in each.options if e.startswith(_UPPER)]
        for folder in uppers or [each.source]:
            if Path(folder).is_dir():
                sync_filesystem(folder)
