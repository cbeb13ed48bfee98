"""What turns one filesystem into another, as a layer (OCI image spec, layer.md, "Changesets").

Both trees are walked side by side; or only the upper folder of an overlay is, whose own marks tell
what was deleted. Either way entries come in the order of their names, and the same trees give the
same layer.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from orlop.errors import InvalidArgument
from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from orlop.tar import zeros
from orlop.tar.pack import FOLDER, Attributes, Packer, explain, is_gone, kept, read_attributes
from orlop.tar.reader import REGULAR, Entry
from orlop.tar.writer import Archive

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_SECOND = 1_000_000_000
_READ = 256 * 1024
_PATH_MAX = 4095  # bytes that the kernel takes as a path, and who unpacks the layer too
_DEPTH = 10_000  # of recursion: more than folders in a path


class RedirectedError(Exception):
    """An upper folder does not tell all: parts of it are elsewhere, by overlayfs' own marks."""


@dataclass(slots=True)
class _Folder:
    """A folder on the way to where the walk is; `written` when the layer has it."""

    path: bytes
    info: os.stat_result
    attributes: Attributes
    written: bool


MOUNT_POINTS = "orlop/diff.mount-points"
"""The label by which a call of the diff service has `mount_points`, separated by spaces."""


class Layer:
    """Writes the changes from one tree to another.

    `overlay` is the prefix of overlayfs' attributes ("trusted.overlay.") where the upper tree is
    the upper folder of an overlay, "" where it is all there is. `newest` is the latest time that an
    entry may have, and that of deletions (nanoseconds). `mount_points` are paths, without a slash
    before them, of empty files that are not written if they are new, nor is the folder's time.
    """

    def __init__(
        self,
        out: Archive,
        *,
        overlay: str = "",
        newest: int | None = None,
        mount_points: Iterable[str] = (),
    ) -> None:
        self._out = out
        self._packer = Packer(out, newest)
        self._overlay = overlay
        self._deletion_time = newest or 0
        self._mount_points = frozenset(map(os.fsencode, mount_points))
        self._timeless = {each.rpartition(b"/")[0] for each in self._mount_points}
        self._trail: list[_Folder] = []
        self._folders: set[bytes] = set()  # that were written
        # Other names of files with several, where the file itself has not changed.
        self._unchanged: dict[tuple[int, int], list[bytes]] = {}

    def write(self, lower: int | None, upper: int) -> None:
        """Write the layer that makes the tree of `upper` out of that of `lower`.

        Raises RedirectedError, and errors that name the file they are about.
        """
        sys.setrecursionlimit(max(_DEPTH, sys.getrecursionlimit()))
        self._walk(lower, upper, b"")
        self._link_unchanged(upper)
        self._out.close()

    def _walk(self, lower: int | None, upper: int, path: bytes) -> None:
        new = _names(upper)
        old: Collection[bytes] = () if lower is None or self._overlay else _names(lower)
        for name in sorted(new.union(old)):
            place = path + b"/" + name if path else name
            if name not in new:
                self._delete(place)
                continue
            try:
                self._entry(lower, upper, name, place)
            except OSError as error:
                if not is_gone(error):
                    raise explain(error, place) from error

    def _entry(self, lower: int | None, upper: int, name: bytes, path: bytes) -> None:
        before = _stat(lower, name)
        now = _stat(upper, name)
        if now is None or stat.S_ISSOCK(now.st_mode) or self._is_whiteout(now, upper, name):
            if before is not None:
                self._delete(path)
            return
        if name.startswith(WHITEOUT):
            raise _not_in_layers(path)
        if len(path) > _PATH_MAX:
            shown = os.fsdecode(path[:60])
            raise InvalidArgument(f'"/{shown}…" goes deeper than the {_PATH_MAX} bytes of a path')
        if stat.S_ISDIR(now.st_mode):
            self._folder(lower if _is_folder(before) else None, upper, name, path)
            return
        if before and lower is not None and _same_file(before, lower, now, upper, name):
            if now.st_nlink > 1:
                self._unchanged.setdefault((now.st_dev, now.st_ino), []).append(path)
            return
        if before is None and now.st_size == 0 and path in self._mount_points:
            return
        attributes = read_attributes(upper, name)
        if self._overlay and self._overlay + "metacopy" in attributes:
            raise RedirectedError
        self._write_trail()
        self._packer.file(path, upper, name, attributes)

    def _folder(self, lower: int | None, upper: int, name: bytes, path: bytes) -> None:
        attributes = read_attributes(upper, name)
        below = None
        fd = os.open(name, FOLDER, dir_fd=upper)
        try:
            info = os.fstat(fd)
            changed = True
            if lower is not None:
                below = os.open(name, FOLDER, dir_fd=lower)
                old, old_attributes = os.fstat(below), read_attributes(lower, name)
                same_time = old.st_mtime_ns == info.st_mtime_ns or path in self._timeless
                changed = not (same_time and _same_folder(old, old_attributes, info, attributes))
            opaque = self._is_opaque(attributes)
            self._trail.append(_Folder(path, info, attributes, written=False))
            try:
                if changed or (opaque and below is not None):
                    self._write_trail()
                if opaque and below is not None:
                    self._mark(path + b"/" + OPAQUE)
                self._walk(None if opaque else below, fd, path)
            finally:
                self._trail.pop()
        finally:
            os.close(fd)
            if below is not None:
                os.close(below)

    # overlayfs' marks

    def _is_whiteout(self, info: os.stat_result, folder: int, name: bytes) -> bool:
        """A device 0:0, or an empty file with an attribute (overlayfs.rst, "whiteouts")."""
        if not self._overlay:
            return False
        if stat.S_ISCHR(info.st_mode):
            return info.st_rdev == 0
        if stat.S_ISREG(info.st_mode) and info.st_size == 0:
            return self._overlay + "whiteout" in read_attributes(folder, name)
        return False

    def _is_opaque(self, attributes: Attributes) -> bool:
        if not self._overlay:
            return False
        if self._overlay + "redirect" in attributes:
            raise RedirectedError
        return attributes.get(self._overlay + "opaque") == b"y"

    # The layer

    def _write_trail(self) -> None:
        """A change is preceded by the folders that it is in."""
        for folder in self._trail:
            if not folder.written:
                self._write_folder(folder.path, folder.info, folder.attributes)
                folder.written = True

    def _write_folder(self, path: bytes, info: os.stat_result, attributes: Attributes) -> None:
        self._packer.folder(path, info, attributes)
        self._folders.add(path)

    def _delete(self, path: bytes) -> None:
        folder, slash, name = path.rpartition(b"/")
        if name.startswith(WHITEOUT):
            raise _not_in_layers(path)
        self._write_trail()
        self._mark(folder + slash + WHITEOUT + name)

    def _mark(self, path: bytes) -> None:
        self._out.entry(
            Entry(
                name=path,
                type=REGULAR,
                mode=0,
                uid=0,
                gid=0,
                size=0,
                mtime=self._deletion_time,
                link=b"",
            )
        )

    def _link_unchanged(self, root: int) -> None:
        """Unchanged names of files that were written: they are still one file with those."""
        for paths in sorted(self._unchanged.values()):
            for path in paths:
                try:
                    self._link(root, path)
                except OSError as error:
                    if not is_gone(error):
                        raise explain(error, path) from error

    def _link(self, root: int, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        folder = _open_below(root, above)
        try:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            target = self._packer.written_as(info)
            if target is not None:
                self._write_folders_above(root, path)
                self._packer.link(path, target, info)
        finally:
            os.close(folder)

    def _write_folders_above(self, root: int, path: bytes) -> None:
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            place = b"/".join(parts[:depth])
            if place in self._folders:
                continue
            folder = _open_below(root, b"/".join(parts[: depth - 1]))
            try:
                info = os.stat(parts[depth - 1], dir_fd=folder, follow_symlinks=False)
                self._write_folder(place, info, read_attributes(folder, parts[depth - 1]))
            finally:
                os.close(folder)


def _names(folder: int) -> set[bytes]:
    return {os.fsencode(name) for name in os.listdir(folder)}


def _stat(folder: int | None, name: bytes) -> os.stat_result | None:
    if folder is None:
        return None
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_folder(info: os.stat_result | None) -> bool:
    return info is not None and stat.S_ISDIR(info.st_mode)


def _open_below(root: int, path: bytes) -> int:
    rules = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    return openat2(root, os.fsdecode(path) or ".", FOLDER, 0, rules)


def _not_in_layers(path: bytes) -> InvalidArgument:
    return InvalidArgument(
        f'"/{os.fsdecode(path)}" cannot be in a layer, '
        'where names that begin with ".wh." stand for deletions: rename it'
    )


# What counts as a change


def _same_folder(
    old: os.stat_result, old_attributes: Attributes, new: os.stat_result, attributes: Attributes
) -> bool:
    return (old.st_mode, old.st_uid, old.st_gid) == (new.st_mode, new.st_uid, new.st_gid) and kept(
        old_attributes
    ) == kept(attributes)


def _same_file(
    old: os.stat_result, lower: int, new: os.stat_result, upper: int, name: bytes
) -> bool:
    """Whether a file is as it was; contents are compared where times tell too little."""
    if _facts(old) != _facts(new):
        return False
    if _is_one_file(old, new):
        return True
    if kept(read_attributes(lower, name)) != kept(read_attributes(upper, name)):
        return False
    if stat.S_ISLNK(new.st_mode):
        return os.readlink(name, dir_fd=lower) == os.readlink(name, dir_fd=upper)
    if stat.S_ISREG(new.st_mode) and new.st_mtime_ns % _SECOND == 0:
        return _same_content(lower, upper, name, new.st_size)
    return True


def _is_one_file(old: os.stat_result, new: os.stat_result) -> bool:
    """Seen twice: a change of attributes would show in its ctime.

    Each view of an overlay has a device number of its own, so an equal ctime has to do. An image
    has mtimes for ctimes, which say nothing, and its inodes the numbers of any other's.
    """
    if (old.st_ino, old.st_ctime_ns) != (new.st_ino, new.st_ctime_ns):
        return False
    return old.st_dev == new.st_dev or old.st_ctime_ns != old.st_mtime_ns


def _facts(info: os.stat_result) -> tuple[int, ...]:
    device = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
    return (
        info.st_mode,
        info.st_uid,
        info.st_gid,
        info.st_size,
        info.st_mtime_ns,
        info.st_rdev if device else 0,
    )


def _same_content(lower: int, upper: int, name: bytes, size: int) -> bool:
    """Of two files of `size` bytes; where both have holes nothing is read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    old = os.open(name, flags, dir_fd=lower)
    try:
        new = os.open(name, flags, dir_fd=upper)
        try:
            at = 0
            while (at := _data_after((old, new), at, size)) < size:
                piece = os.pread(old, _READ, at)
                if piece != os.pread(new, _READ, at):
                    return False
                at += len(piece) or size  # shorter by now, both
            return True
        finally:
            os.close(new)
    finally:
        os.close(old)


def _data_after(fds: Iterable[int], offset: int, size: int) -> int:
    return min(zeros.data_after(fd, offset, size) for fd in fds)
