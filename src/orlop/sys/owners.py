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
from orlop.sys.idmap import IdMapping
from orlop.sys.walking import Place, walk

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
    walk(root, _Changer(mapping).look)


@dataclass(slots=True)
class _Linked:
    """Where the first name of a file with several is, and how many are to come."""

    place: Place
    more: int


class _Changer:
    def __init__(self, mapping: IdMapping) -> None:
        self._uid = _known(mapping.uid)
        self._gid = _known(mapping.gid)
        self._root = mapping.root[0]
        self._linked: dict[tuple[int, int], _Linked] = {}

    def look(self, fd: int, place: Place) -> list[str]:
        """Change a folder and the files in it; it becomes the working directory."""
        os.fchdir(fd)
        before = os.lstat(".")
        self.change(".", before)
        names = os.listdir(".")
        below, relinked = [], False
        for name in names:
            info = os.lstat(name)
            if stat.S_ISDIR(info.st_mode):
                below.append(name)
            elif info.st_nlink > 1 and self._link(place, name, info):
                relinked = True
            else:
                self.change(name, info)
        if relinked:
            os.utime(".", ns=(before.st_atime_ns, before.st_mtime_ns))
        return below

    def _link(self, place: Place, name: str, info: os.stat_result) -> bool:
        """Make a further name of a file that has been changed one of it again."""
        key = (info.st_dev, info.st_ino)
        first = self._linked.get(key)
        if first is None:
            self._linked[key] = _Linked(place.of(name), info.st_nlink - 1)
            return False
        os.unlink(name)
        where = first.place
        os.link(where.path, name, src_dir_fd=where.base.fd, follow_symlinks=False)
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
