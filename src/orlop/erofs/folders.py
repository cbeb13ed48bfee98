"""The folder of a snapshot whose layer is kept as an image, as containerd's snapshotter has it.

A marker says that the folder wants an image; whoever applies a layer to the mounts of the snapshot
writes it there, instead of files into the upper folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from orlop.sys.mount import Mount

MARKER = ".erofslayer"
LAYER = "layer.erofs"
SEALED = "sealed.erofs"
"""The image of all that a snapshot is, which is its layer once it is committed."""
UNFINISHED = "unfinished-"
"""What the names of images begin with that are being written."""

_BLOCK = 4096  # the size of blocks where the marker tells none: every kernel has that


def mark(folder: Path, block_size: int) -> None:
    (folder / MARKER).write_text(f"{block_size}\n")


def block_size(folder: Path) -> int:
    """Of the image that a folder wants."""
    text = (folder / MARKER).read_text().strip()
    return int(text) if text.isdecimal() else _BLOCK


def wants_image(mounts: Sequence[Mount]) -> Path | None:
    """The folder that an image of the layer to be applied to `mounts` is to be written to.

    None where it has one, or files, already, or where the mounts are of something else.
    """
    if len(mounts) != 1 or mounts[0].target:
        return None
    (only,) = mounts
    options = dict(option.partition("=")[::2] for option in only.options)
    upper = only.source if only.type == "bind" and "ro" not in options else ""
    if only.type == "overlay":
        upper = options.get("upperdir", "")
    folder = Path(upper).parent
    if not upper or not (folder / MARKER).exists() or (folder / LAYER).exists():
        return None
    with os.scandir(upper) as entries:
        return None if any(entries) else folder
