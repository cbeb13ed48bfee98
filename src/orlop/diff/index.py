"""The worker that makes an EROFS image of a layer: confinement first, then bytes.

One thread inflates and hashes, the other writes what comes and notes which file it is.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from orlop.diff.confinement import confine, private_mounts
from orlop.diff.inflating import Pump, batches
from orlop.erofs.image import Image
from orlop.erofs.tree import LayerTree
from orlop.errors import OrlopError, ResourceExhausted
from orlop.fork.worker import Report
from orlop.oci.digest import Digest
from orlop.sys.fs import sync_folder
from orlop.sys.mount import MS_BIND, mount
from orlop.tar.reader import TarReader

_PLACES = 1000  # in one message
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def index(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """The job (see `orlop.fork.worker`): make an image of the layer that descriptor 0 gives.

    It is written to `unfinished` and becomes `name` in `folder` when it is whole, with blocks of
    `block_size` bytes; `max_size`, `max_ratio`, `max_zeros`, `max_entries` limit it. Descriptor 1,
    if given, tells in JSON what implied folders look like (`LayerTree.give_looks`). Answers as
    `orlop.diff.unpack` does, and reports where the inodes of implied folders are, in the same
    order: `{"places": […]}`.
    """
    source, *told = fds
    looks = json.load(os.fdopen(told[0])) if told else {}
    _confine(Path(args["folder"]))
    pump = Pump(source, args["max_size"], args["max_ratio"], args["max_zeros"])
    try:
        tree, places = _write(pump, args, looks)
    except OrlopError:
        pump.stop()
        raise
    except MemoryError:
        raise ResourceExhausted("layer has more names than fit in memory") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted("no space left for the image of a layer") from error
        raise
    for batch in batches(tree.implicit):
        report({"implicit": batch})
    for start in range(0, len(places), _PLACES):
        report({"places": places[start : start + _PLACES]})
    return {"diff_id": pump.digest(), "size": pump.size, "entries": tree.entries}


def _write(pump: Pump, args: dict[str, Any], looks: dict[str, Any]) -> tuple[LayerTree, list[int]]:
    unfinished, name = f"/{args['unfinished']}", f"/{args['name']}"
    fd = os.open(unfinished, _CREATE, 0o600)
    try:
        image = Image(fd, args["block_size"])
        tree = _index(pump, image, args, looks)
        os.fsync(fd)
        os.rename(unfinished, name)  # noqa: PTH104 - nothing to import once confined
    except BaseException:
        os.unlink(unfinished)  # noqa: PTH108
        raise
    finally:
        os.close(fd)
    sync_folder(os.path.dirname(name))  # noqa: PTH120 - a row will say that it is there
    return tree, [image.offset(node) for node in tree.implicit.values()]


def _index(pump: Pump, image: Image, args: dict[str, Any], looks: dict[str, Any]) -> LayerTree:
    reader = TarReader(image.through(pump.read), max_holes=args["max_zeros"])
    tree = LayerTree(image.place, max_entries=args["max_entries"])
    tree.read(reader)
    reader.drain()
    tree.give_looks(looks)
    image.finish(tree.root, bytes.fromhex(Digest.parse(pump.digest()).hex)[:16])
    return tree


def _confine(folder: Path) -> None:
    private_mounts()
    mount(str(folder), folder, "", MS_BIND)
    confine(folder, ())
