"""The owners of all files of a tree changed, as a user namespace would show them.

All else stays: modes, also those bits that a change of owner takes away; file capabilities, which
become those of the namespace's root; users and groups of access control lists; hard links, which an
overlay breaks when it copies one of the names; times of folders.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from orlop.errors import InvalidArgument
from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from orlop.sys.idmap import IdMapping

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_RULES = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_PATH_MAX = 700  # characters, as names have up to 255 of up to four bytes
_KILLED = stat.S_ISUID | stat.S_ISGID
_CAPABILITY = "security.capability"
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_NONE = (errno.ENODATA, errno.EOPNOTSUPP)
# struct vfs_cap_data and vfs_ns_cap_data (linux/capability.h)
_CAPABILITIES = struct.Struct("<I16s")
_REVISION, _REVISION_3 = 0xFF000000, 0x03000000
# struct posix_acl_xattr_entry (linux/posix_acl_xattr.h)
_ENTRY = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP = 2, 8


def change_owners(root: str, mapping: IdMapping) -> None:
    """Map the owners of the folder `root` and of all below it, which nobody else changes meanwhile.

    The calling thread's working directory is another afterwards. Raises OSError, and
    InvalidArgument for an owner that is not mapped; then some files have their new owners already.
    """
    changer = _Changer(mapping)
    top = _Folder(os.open(root, _FOLDER | os.O_CLOEXEC))
    os.fchdir(top.fd)
    changer.change(".", os.lstat("."))
    waiting = [(top, ".")]
    while waiting:
        base, path = waiting.pop()
        here = _Folder(openat2(base.fd, path, _FOLDER, 0, _RULES))
        if len(path) > _PATH_MAX:
            base, path = here, "."
        waiting += [(base, f"{path}/{name}") for name in changer.inside(here)]


class _Folder:
    """An open folder, closed when nothing needs it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


@dataclass(slots=True)
class _Linked:
    """Where the first name of a file with several is, and how many are to come."""

    folder: _Folder
    name: str
    more: int


class _Changer:
    def __init__(self, mapping: IdMapping) -> None:
        self._uid = _known(mapping.uid)
        self._gid = _known(mapping.gid)
        self._root = mapping.root[0]
        self._linked: dict[tuple[int, int], _Linked] = {}

    def inside(self, folder: _Folder) -> list[str]:
        """Change all that is in a folder, which becomes the working directory; those below."""
        os.fchdir(folder.fd)
        before = os.lstat(".")
        names = os.listdir(".")
        below, relinked = [], False
        for name in names:
            info = os.lstat(name)
            if stat.S_ISDIR(info.st_mode):
                below.append(name)
            elif info.st_nlink > 1 and self._link(folder, name, info):
                relinked = True
                continue
            self.change(name, info)
        if relinked:
            os.utime(".", ns=(before.st_atime_ns, before.st_mtime_ns))
        return below

    def _link(self, folder: _Folder, name: str, info: os.stat_result) -> bool:
        """Make a further name of a file that has been changed one of it again."""
        key = (info.st_dev, info.st_ino)
        first = self._linked.get(key)
        if first is None:
            self._linked[key] = _Linked(folder, name, info.st_nlink - 1)
            return False
        os.unlink(name)
        os.link(first.name, name, src_dir_fd=first.folder.fd, follow_symlinks=False)
        first.more -= 1
        if not first.more:
            del self._linked[key]
        return True

    def change(self, name: str, info: os.stat_result) -> None:
        link = stat.S_ISLNK(info.st_mode)
        kept = {} if link else self._attributes(name, info)
        os.chown(name, self._uid(info.st_uid), self._gid(info.st_gid), follow_symlinks=False)
        if info.st_mode & _KILLED and not link:
            os.chmod(name, stat.S_IMODE(info.st_mode))
        for attribute, value in kept.items():
            os.setxattr(name, attribute, value, follow_symlinks=False)

    def _attributes(self, name: str, info: os.stat_result) -> dict[str, bytes]:
        """Those that tell ids, or go with a change of the owner: as they are to be."""
        found = {}
        if stat.S_ISREG(info.st_mode):
            value = _read(name, _CAPABILITY)
            if value:
                found[_CAPABILITY] = self._capabilities(value)
        for attribute in _ACLS if stat.S_ISDIR(info.st_mode) else _ACLS[:1]:
            value = _read(name, attribute)
            if value:
                found[attribute] = self._acl(value)
        return found

    def _capabilities(self, value: bytes) -> bytes:
        magic, sets = _CAPABILITIES.unpack_from(value)
        root = self._root
        if magic & _REVISION == _REVISION_3:
            root = self._uid(int.from_bytes(value[_CAPABILITIES.size :], "little"))
        flags = magic & ~_REVISION
        return _CAPABILITIES.pack(_REVISION_3 | flags, sets) + root.to_bytes(4, "little")

    def _acl(self, value: bytes) -> bytes:
        entries = [value[:4]]
        for tag, rights, number in _ENTRY.iter_unpack(value[4:]):
            if tag == _ACL_USER:
                number = self._uid(number)  # noqa: PLW2901
            elif tag == _ACL_GROUP:
                number = self._gid(number)  # noqa: PLW2901
            entries.append(_ENTRY.pack(tag, rights, number))
        return b"".join(entries)


def _known(outside: Callable[[int], int | None]) -> Callable[[int], int]:
    @cache
    def find(inside: int) -> int:
        found = outside(inside)
        if found is None:
            raise InvalidArgument(f"there are files of id {inside}, which is not mapped")
        return found

    return find


def _read(name: str, attribute: str) -> bytes:
    try:
        return os.getxattr(name, attribute, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NONE:
            return b""
        raise
