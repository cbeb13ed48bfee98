"""Write files of a tree to an archive, by descriptors of their folders and never through a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from orlop.errors import Aborted, OrlopError, ResourceExhausted, Unknown
from orlop.sys.fs import filesystem_type
from orlop.tar import names, zeros
from orlop.tar import reader as tar
from orlop.tar.reader import Entry
from orlop.tar.writer import Archive

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not to wait for the other end of a fifo that takes a file's place meanwhile.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = 256 * 1024
_BLOCK = 512  # of stat(2)
# By statfs(2): proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs, bpf.
_VIRTUAL = frozenset(
    (
        0x9FA0,
        0x62656572,
        0x27E0EB,
        0x63677270,
        0x1CD1,
        0x19800202,
        0x64626720,
        0x74726163,
        0x73636673,
        0xCAFE4A11,
    )
)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_OVERLAY = "user.overlay."
_KEPT = ("security.capability", names.ACCESS_ACL, names.DEFAULT_ACL)
_KINDS = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHAR,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}

Attributes = dict[str, bytes]


class Packer:
    """Writes files with owners, times, attributes and hard links; sockets have no place in a tar.

    No time is later than `newest` (nanoseconds). It changes the process's working directory, as
    attributes of a name in a folder can be read in no other way.
    """

    def __init__(self, out: Archive, newest: int | None = None) -> None:
        self._out = out
        self._newest = newest
        self._first: dict[tuple[int, int], bytes] = {}

    def written_as(self, info: os.stat_result) -> bytes | None:
        """The path under which a file with several names was written, or None."""
        return self._first.get((info.st_dev, info.st_ino))

    def folder(self, path: bytes, info: os.stat_result, attributes: Attributes) -> None:
        """A folder, without what is in it."""
        self._out.entry(self._entry(path, info, kept(attributes)))

    def file(self, path: bytes, folder: int, name: bytes, attributes: Attributes) -> bool:
        """What is no folder: `name` in `folder`, as `path`; False if it is gone, or a socket.

        Raises Aborted for a file that is cut short while it is read.
        """
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_IFMT(info.st_mode) not in _KINDS:
            return False
        target = self.written_as(info) if info.st_nlink > 1 else None
        if target is not None:
            self.link(path, target, info)
            return True
        if stat.S_ISREG(info.st_mode):
            self._regular(path, folder, name, attributes)
        else:
            self._special(path, folder, name, info, attributes)
        if info.st_nlink > 1:
            self._first[info.st_dev, info.st_ino] = path
        return True

    def _special(
        self, path: bytes, folder: int, name: bytes, info: os.stat_result, attributes: Attributes
    ) -> None:
        entry = self._entry(path, info, kept(attributes))
        if stat.S_ISLNK(info.st_mode):
            entry.link = os.readlink(name, dir_fd=folder)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            entry.major, entry.minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        self._out.entry(entry)

    def _regular(self, path: bytes, folder: int, name: bytes, attributes: Attributes) -> None:
        fd = os.open(name, _FILE, dir_fd=folder)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise _changed(path)
            entry = self._entry(path, info, kept(attributes))
            entry.size = info.st_size
            self._out.entry(entry)
            self._out.content(_content(fd, info, path), info.st_size)
        finally:
            os.close(fd)

    def tree(self, path: bytes, folder: int, name: bytes) -> None:
        """A file, or a folder with all that is in it, in the order of names.

        Filesystems without files of their own (proc, cgroups, …) are entered only by name: in a
        larger tree they are empty folders. Raises FileNotFoundError for the first one only.
        """
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        attributes = read_attributes(folder, name)
        if not stat.S_ISDIR(info.st_mode):
            self.file(path, folder, name, attributes)
            return
        fd = os.open(name, FOLDER, dir_fd=folder)
        try:
            self.folder(path, os.fstat(fd), attributes)
            self._inside(path, fd, os.fstat(fd).st_dev)
        finally:
            os.close(fd)

    def _inside(self, path: bytes, fd: int, device: int) -> None:
        for each in sorted(map(os.fsencode, os.listdir(fd))):
            place = path + b"/" + each
            try:
                info = os.stat(each, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode) and info.st_dev != device and _is_virtual(fd, each):
                    self.folder(place, info, {})
                else:
                    self.tree(place, fd, each)
            except OSError as error:
                if not is_gone(error):
                    raise explain(error, place) from error

    def link(self, path: bytes, target: bytes, info: os.stat_result) -> None:
        """A further name of the file that was written as `target`."""
        entry = self._entry(path, info, {})
        entry.type, entry.link = tar.LINK, target
        self._out.entry(entry)

    def _entry(self, path: bytes, info: os.stat_result, attributes: Attributes) -> Entry:
        newest = self._newest
        mtime = info.st_mtime_ns if newest is None else min(info.st_mtime_ns, newest)
        return Entry(
            name=path,
            type=_KINDS[stat.S_IFMT(info.st_mode)],
            mode=stat.S_IMODE(info.st_mode),
            uid=info.st_uid,
            gid=info.st_gid,
            size=0,
            mtime=mtime,
            link=b"",
            xattrs=attributes,
        )


def _content(fd: int, info: os.stat_result, path: bytes) -> Iterator[bytes | memoryview]:
    """As many bytes as it had: what is appended meanwhile is left out, and holes are not read."""
    at, size = 0, info.st_size
    sparse = info.st_blocks * _BLOCK < size
    while at < size:
        end = size
        if sparse:
            data = zeros.data_after(fd, at, size)
            yield from zeros.of(data - at)
            at, end = data, zeros.hole_after(fd, data, size)
        while at < end:
            piece = os.pread(fd, min(end - at, _READ), at)
            if not piece:
                raise _changed(path)
            at += len(piece)
            yield piece
    if sparse and os.fstat(fd).st_size < size:
        raise _changed(path)


def _is_virtual(folder: int, name: bytes) -> bool:
    fd = os.open(name, FOLDER, dir_fd=folder)
    try:
        return filesystem_type(fd) in _VIRTUAL
    finally:
        os.close(fd)


def _changed(path: bytes) -> Aborted:
    return Aborted(
        f'"/{os.fsdecode(path)}" changed while it was read: '
        "pause or stop what writes to it, and try again"
    )


def read_attributes(folder: int, name: bytes) -> Attributes:
    """All extended attributes of `name` in `folder`, which is no link to follow."""
    os.fchdir(folder)
    found: Attributes = {}
    try:
        for key in os.listxattr(name, follow_symlinks=False):
            found[key] = os.getxattr(name, key, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.ENOENT):
            raise
    return found


def kept(attributes: Attributes) -> Attributes:
    """Those that mean the same elsewhere: capabilities of a program, access lists, users' own."""
    return {
        key: value
        for key, value in attributes.items()
        if key in _KEPT or (key.startswith("user.") and not key.startswith(_OVERLAY))
    }


def is_gone(error: OSError) -> bool:
    """Whether a file was removed, or replaced, between two looks at it."""
    return error.errno in _GONE


def explain(error: OSError, path: bytes) -> OrlopError:
    """What went wrong with the file `path`, in words."""
    shown = f'"/{os.fsdecode(path)}"'
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceExhausted(f"{shown} is in more folders than files may be open")
    return Unknown(f"{shown} cannot be read: {(error.strerror or str(error)).lower()}")
