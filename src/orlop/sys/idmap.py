"""Mounts whose files have other owners than on disk: ids are mapped as in a user namespace.

See mount_setattr(2), "ID-mapped mounts". A mapping is `CONTAINER:HOST:SIZE`, several between
commas: a file of CONTAINER on disk is shown as one of HOST.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orlop.errors import InvalidArgument
from orlop.sys.libc import call, syscall
from orlop.sys.libc import path as encode
from orlop.sys.overlay import clone_tree, move_mount
from orlop.sys.process import set_parent_death_signal

# The same number on every architecture.
_SYS_MOUNT_SETATTR = 442
_AT_EMPTY_PATH = 0x1000
_MOUNT_ATTR_RDONLY = 0x00000001
_MOUNT_ATTR_IDMAP = 0x00100000
_CLONE_NEWUSER = 0x10000000
_MNT_DETACH = 2
_CANNOT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_IDS = 2**32 - 1
"""The last one of 32 bits means none."""
_FORM = re.compile(r"\d+:\d+:\d+(,\d+:\d+:\d+)*")


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


class IdMapping:
    """Uids and gids as a snapshotter's mount options tell them."""

    def __init__(self, uids: str, gids: str) -> None:
        for text in (uids, gids):
            if not _FORM.fullmatch(text):
                raise InvalidArgument(f'mapping of ids "{text}" is not CONTAINER:HOST:SIZE,…')
            for entry in text.split(","):
                container, host, size = map(int, entry.split(":"))
                if max(container, host) + size > _IDS:
                    raise InvalidArgument(f'mapping of ids "{text}" goes beyond {_IDS - 1}')
        self._uids, self._gids = uids, gids

    @classmethod
    def of(cls, options: Sequence[str]) -> tuple[IdMapping | None, list[str]]:
        """The mapping in `uidmap=` and `gidmap=` options, and the options without it."""
        found = {"uidmap": "", "gidmap": ""}
        rest = []
        for option in options:
            key, _, value = option.partition("=")
            if key in found:
                found[key] = value
            else:
                rest.append(option)
        if not any(found.values()):
            return None, rest
        return cls(found["uidmap"], found["gidmap"]), rest

    @property
    def options(self) -> tuple[str, str]:
        """The mount options that tell it."""
        return f"uidmap={self._uids}", f"gidmap={self._gids}"

    @property
    def name(self) -> str:
        """It as part of a key."""
        return f"{self._uids}-{self._gids}".replace(":", "-").replace(",", "+")

    @property
    def root(self) -> tuple[int, int]:
        """What uid and gid 0 are outside; InvalidArgument if they are not mapped."""
        found = self.uid(0), self.gid(0)
        for number, text in zip(found, (self._uids, self._gids), strict=True):
            if number is None:
                raise InvalidArgument(f'mapping of ids "{text}" does not map 0')
        return found  # type: ignore[return-value]

    def uid(self, inside: int) -> int | None:
        """What a uid is outside; None if it is not mapped."""
        return _outside_of(inside, self._uids)

    def gid(self, inside: int) -> int | None:
        """What a gid is outside; None if it is not mapped."""
        return _outside_of(inside, self._gids)

    @contextmanager
    def namespace(self) -> Iterator[int]:
        """A descriptor of a user namespace that maps so."""
        ready, told = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        child = os.fork()
        if not child:
            with suppress(BaseException):
                call("unshare", _CLONE_NEWUSER, about="unshare")
                set_parent_death_signal(signal.SIGKILL)  # which the unshare would have cleared
                if os.getppid() == parent:
                    os.write(told, b"x")
                    signal.pause()
            os._exit(1)
        try:
            os.close(told)
            if not os.read(ready, 1):
                raise OSError(28, "no user namespace can be made")
            for kind, text in (("uid", self._uids), ("gid", self._gids)):
                _write(f"/proc/{child}/{kind}_map", text.replace(":", " ").replace(",", "\n"))
            fd = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(ready)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):  # a shim reaps all of its children
                os.waitpid(child, 0)
        try:
            yield fd
        finally:
            os.close(fd)

    def mount(self, source: str, target: Path) -> None:
        """Mount the tree at `source` a second time at `target`, with its ids mapped.

        Raises OSError; EINVAL and EOPNOTSUPP are for a filesystem that cannot do so.
        """
        self._mount(source, target, 0)

    def _mount(self, source: str, target: Path, more: int) -> None:
        with self._tree(source, more) as tree:
            move_mount(tree, target)

    def works_on(self, source: str) -> bool:
        """Whether the tree at `source` can be mounted so; OSError for other reasons than it."""
        try:
            with self._tree(source):
                return True
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise

    @contextmanager
    def _tree(self, source: str, more: int = 0) -> Iterator[int]:
        """A mount of a tree, with its ids mapped and `more` attributes, that is nowhere yet."""
        about = f'"{source}" with mapped ids'
        tree = clone_tree(source, about)
        try:
            with self.namespace() as namespace:
                attributes = _Attributes(_MOUNT_ATTR_IDMAP | more, 0, 0, namespace)
                syscall(
                    _SYS_MOUNT_SETATTR,
                    tree,
                    ctypes.c_char_p(b""),
                    _AT_EMPTY_PATH,
                    ctypes.byref(attributes),
                    ctypes.c_size_t(ctypes.sizeof(attributes)),
                    about=about,
                )
            yield tree
        finally:
            os.close(tree)

    @contextmanager
    def lowers(self, folders: Sequence[str], scratch: Path | None) -> Iterator[list[str]]:
        """The lower folders of an overlay with their ids mapped, while it is being mounted.

        What they have in common is mounted once, or each where they are mounts themselves; the
        overlay keeps that alive. It is in `scratch`, or where temporary files are, and read-only:
        who is killed leaves it behind, for somebody to delete.
        """
        common = os.path.commonpath([os.path.dirname(each) for each in folders])  # noqa: PTH120
        here = os.stat(common).st_dev  # noqa: PTH116 - no pathlib in shims
        apart = any(os.stat(each).st_dev != here for each in folders)  # noqa: PTH116
        sources = list(folders) if apart else [common]
        import tempfile  # noqa: PLC0415 - every shim would share its memory, and hardly one needs it

        where = Path(tempfile.mkdtemp(prefix="orlop-idmap-", dir=scratch))
        points = [where / str(number) for number in range(len(sources))]
        try:
            for source, point in zip(sources, points, strict=True):
                point.mkdir()
                self._mount(source, point, _MOUNT_ATTR_RDONLY)
            if apart:
                yield [str(point) for point in points]
            else:
                yield [str(points[0] / os.path.relpath(each, common)) for each in folders]
        finally:
            for point in points:
                with suppress(OSError):  # it did not come to that
                    call("umount2", ctypes.c_char_p(encode(point)), _MNT_DETACH, about=str(point))
                with suppress(FileNotFoundError):
                    point.rmdir()
            where.rmdir()


def _outside_of(inside: int, text: str) -> int | None:
    for entry in text.split(","):
        container, host, size = map(int, entry.split(":"))
        if container <= inside < container + size:
            return host + inside - container
    return None


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
