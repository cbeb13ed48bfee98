"""Folders that a layer implies look as they do in the layers below.

A layer may hold `a/b` without `a`. Where a lower layer has `a`, the upper folder's `a` must have
the same owner, mode, attributes and time, or it would hide them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def inherit_folders(upper: Path, lowers: Sequence[Path], folders: Iterable[str]) -> None:
    """Give each of `folders` in `upper` the attributes of the nearest of `lowers` that has it."""
    roots = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (upper, *lowers)]
    try:
        for folder in folders:
            _inherit(roots[0], roots[1:], folder)
    finally:
        for root in roots:
            os.close(root)


def looks_of(lowers: Sequence[Path], folders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What each of `folders` looks like in the nearest of `lowers` that has it, for JSON."""
    found = {}
    roots = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in lowers]
    try:
        for folder in folders:
            for root in roots:
                fd = _open(root, folder)
                if fd is not None:
                    found[folder] = _look(fd)
                    break
    finally:
        for root in roots:
            os.close(root)
    return found


def _look(folder: int) -> dict[str, Any]:
    try:
        info = os.fstat(folder)
        return {
            "mode": info.st_mode & 0o7777,
            "uid": info.st_uid,
            "gid": info.st_gid,
            "mtime": info.st_mtime_ns,
            "xattrs": {
                name: os.getxattr(folder, name).hex()
                for name in os.listxattr(folder)
                if not name.startswith(_OVERLAYS_OWN)
            },
        }
    finally:
        os.close(folder)


def _inherit(upper: int, lowers: Sequence[int], folder: str) -> None:
    target = _open(upper, folder)
    if target is None:
        return
    try:
        for lower in lowers:
            source = _open(lower, folder)
            if source is not None:
                try:
                    _copy_attributes(source, target)
                finally:
                    os.close(source)
                return
    finally:
        os.close(target)


def _open(root: int, folder: str) -> int | None:
    try:
        return openat2(root, folder, _FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            return None
        raise


def _copy_attributes(source: int, target: int) -> None:
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAYS_OWN):
            os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, info.st_mode & 0o7777)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
