"""What a tree of files is, entry by entry, so that two can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

_IGNORED = ("trusted.overlay.", "user.rootlesscontainers", "user.umoci.")

Entry = tuple[object, ...]


def describe(root: Path) -> dict[str, Entry]:
    """By path: kind and mode, owner, size, mtime, target, device, content, attributes, hard links.

    Hard links are told by the first path of each inode.
    """
    found: dict[str, Entry] = {}
    first: dict[tuple[int, int], str] = {}
    paths = [root, *sorted(root.rglob("*"))]
    for path in paths:
        name = str(path.relative_to(root))
        info = path.lstat()
        kind = stat.S_IFMT(info.st_mode)
        inode = info.st_dev, info.st_ino
        first.setdefault(inode, name)
        found[name] = (
            oct(info.st_mode),
            info.st_uid,
            info.st_gid,
            int(info.st_mtime) if name != "." else 0,
            info.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            path.readlink() if kind == stat.S_IFLNK else "",
            hashlib.sha256(path.read_bytes()).hexdigest() if kind == stat.S_IFREG else "",
            first[inode] if kind == stat.S_IFREG else "",
            _attributes(path),
        )
    return found


def _attributes(path: Path) -> tuple[tuple[str, bytes], ...]:
    names = os.listxattr(path, follow_symlinks=False)
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(names)
        if not name.startswith(_IGNORED)
    )
