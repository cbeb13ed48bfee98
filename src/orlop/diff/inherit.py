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
_OPAQUE = [prefix + "opaque" for prefix in _OVERLAYS_OWN]
# Something else, or a deletion, is in the place of the folder or of one on the way.
_NO_FOLDER = (errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def inherit_folders(upper: Path, lowers: Sequence[Path], folders: Iterable[str]) -> None:
    """Give each of `folders` in `upper` the attributes of what it covers of `lowers`, if any."""
    roots = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (upper, *lowers)]
    try:
        for folder in folders:
            _inherit(roots[0], roots[1:], folder)
    finally:
        for root in roots:
            os.close(root)


def looks_of(lowers: Sequence[Path], folders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What each of `folders` looks like in `lowers`, of those that are there, for JSON."""
    found = {}
    roots = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in lowers]
    try:
        for folder in folders:
            fd = _find(roots, folder)
            if fd is not None:
                found[folder] = _look(fd)
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
        source = _find(lowers, folder)
        if source is not None:
            try:
                _copy_attributes(source, target)
            finally:
                os.close(source)
    finally:
        os.close(target)


def _find(lowers: Sequence[int], folder: str) -> int | None:
    """The folder in the nearest layer that has it, unless a nearer one hides it."""
    for lower in lowers:
        try:
            return _open_below(lower, folder)
        except FileNotFoundError:
            if _is_hidden_by(lower, folder):
                return None
        except OSError as error:
            if error.errno in _NO_FOLDER:
                return None
            raise
    return None


def _is_hidden_by(lower: int, folder: str) -> bool:
    """Whether a layer has a folder on the way that hides what lower ones have in it."""
    while folder := folder.rpartition("/")[0]:
        try:
            fd = _open_below(lower, folder)
        except FileNotFoundError:
            continue
        try:
            there = os.listxattr(fd)
            if any(name in there and os.getxattr(fd, name) == b"y" for name in _OPAQUE):
                return True
        finally:
            os.close(fd)
    return False


def _open(root: int, folder: str) -> int | None:
    try:
        return _open_below(root, folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, *_NO_FOLDER):
            return None
        raise


def _open_below(root: int, folder: str) -> int:
    return openat2(root, folder, _FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def _copy_attributes(source: int, target: int) -> None:
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAYS_OWN):
            os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, info.st_mode & 0o7777)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
