"""The tree of files that a layer's entries make, as unpacking them into a folder would.

The rules are those of `orlop.tar.extract` for overlayfs: deletions are character devices 0:0, a
folder that replaces what lower layers have is opaque. Only contents stay where they are.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from orlop.erofs import layout
from orlop.errors import InvalidArgument, ResourceExhausted
from orlop.tar import names
from orlop.tar import reader as tar
from orlop.tar.bounds import Bounds
from orlop.tar.names import show
from orlop.tar.own_paths import OwnPaths
from orlop.tar.reader import Entry, TarReader

_WHAT = "layer"
_OPAQUE_XATTR = "trusted.overlay.opaque"
_PATH_MAX = 4096
_LINKS_MAX = 40  # that a path may go through, as in the kernel
_IDS = 1 << 32
_TIMES = 1 << 63
_TYPES = {
    tar.REGULAR: stat.S_IFREG,
    tar.DIRECTORY: stat.S_IFDIR,
    tar.SYMLINK: stat.S_IFLNK,
    tar.CHAR: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}


class Node:
    """A file of any kind; `children` only of folders, `target` only of symbolic links.

    `place` is where a file's content begins, or a device's number; hard links are one node.
    """

    __slots__ = (
        "children",
        "gid",
        "links",
        "mode",
        "mtime",
        "place",
        "size",
        "slot",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime: int = 0) -> None:
        self.mode, self.uid, self.gid, self.mtime = mode, uid, gid, mtime
        self.size = self.place = self.links = 0
        self.slot = -1
        self.xattrs: dict[str, bytes] = {}
        self.target: bytes | None = None
        self.children: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None

    @property
    def is_whiteout(self) -> bool:
        return stat.S_ISCHR(self.mode) and not self.place


# Notes in a node at which byte of the image an entry's content begins, and may put it there.
Place = Callable[[Node, Entry, TarReader], None]


class LayerTree:
    """Grows by the entries of one layer; `implicit` are the folders that it needs but lacks."""

    def __init__(self, place: Place, *, max_entries: int) -> None:
        self.root = Node(stat.S_IFDIR | 0o755)
        self.implicit: dict[bytes, Node] = {}
        self._bounds = Bounds(_WHAT, max_entries)
        self._place = place
        self._folders: dict[bytes, Node] = {b"": self.root}
        self._own = OwnPaths()

    @property
    def entries(self) -> int:
        """How many there were, with the folders that they implied."""
        return self._bounds.entries

    def read(self, reader: TarReader) -> None:
        """Take all entries; raises InvalidArgument, ResourceExhausted or what `place` does."""
        for entry in reader:
            self._bounds.entry()
            path = names.clean(entry.name, _WHAT)
            if path:
                self._add(path, entry, reader)

    def give_looks(self, looks: Mapping[str, Mapping[str, Any]]) -> None:
        """Let implied folders look as they do in the layers below; see `orlop.diff.inherit`."""
        for path, look in looks.items():
            node = self.implicit.get(os.fsencode(path))
            if node is not None:
                node.mode = stat.S_IFDIR | look["mode"]
                node.uid, node.gid, node.mtime = look["uid"], look["gid"], look["mtime"]
                for key, value in look["xattrs"].items():
                    node.xattrs[key] = bytes.fromhex(value)

    def _add(self, path: bytes, entry: Entry, reader: TarReader) -> None:
        folder, _, name = path.rpartition(b"/")
        try:
            if name.startswith(names.WHITEOUT):
                self._whiteout(folder, name, entry.mtime)
                return
            parent = self._folder(folder, entry.mtime)
            if len(name) > layout.NAME_MAX:
                raise _os_error(errno.ENAMETOOLONG)
            if entry.type == tar.LINK:
                self._hard_link(parent, path, name, entry)
            elif entry.type == tar.DIRECTORY:
                self._directory(parent, path, name, entry)
            else:
                self._put(parent, name, self._file(entry, reader))
        except OSError as error:
            raise _explain(error, path) from error
        except (OverflowError, ValueError) as error:
            raise InvalidArgument(
                f"{_WHAT} entry {show(path)} has a value that no file can have: {error}"
            ) from error
        self._own.add(path, folder)

    # Folders

    def _folder(self, path: bytes, mtime: int) -> Node:
        """The folder `path`; what is missing of it is made."""
        found = self._folders.get(path)
        if found is not None:
            return found
        try:
            return self._find_folder(path, mtime)
        except OSError as error:
            raise _explain(error, path) from error

    def _find_folder(self, path: bytes, mtime: int) -> Node:
        if len(path) >= _PATH_MAX:
            raise _os_error(errno.ENAMETOOLONG)
        whole, missing = path, []
        while (found := self._walk(path)) is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        if missing:
            _check_time(mtime)
        for path in reversed(missing):
            self._bounds.implied(path)
            folder, name = found, path.rpartition(b"/")[2]
            if len(name) > layout.NAME_MAX:
                raise _os_error(errno.ENAMETOOLONG)
            if name in _children(folder):  # a link to nothing
                raise _os_error(errno.EEXIST)
            found = self.implicit[path] = Node(stat.S_IFDIR | 0o755, mtime=mtime)
            _children(folder)[name] = self._folders[path] = found
        self._folders[whole] = found
        return found

    def _walk(self, path: bytes) -> Node | None:
        """The folder at `path`, through links; None if it is not there.

        An absolute link means the layer's root; InvalidArgument for one that climbs out of it.
        """
        at, waiting, links, inside = [self.root], path.split(b"/")[::-1], 0, False
        while waiting:
            part = waiting.pop()
            if part == b"..":
                if len(at) > 1:
                    at.pop()
                elif not inside:
                    raise InvalidArgument(
                        f"{_WHAT} entry leads out of the {_WHAT}: {show(path)} goes through a link "
                        "that climbs above the root"
                    )
                continue
            if part in (b"", b"."):
                continue
            node = _children(at[-1]).get(part)
            if node is None:
                return None
            if node.target is not None:
                links += 1
                if links > _LINKS_MAX:
                    raise _os_error(errno.ELOOP)
                if node.target.startswith(b"/"):
                    at, inside = [self.root], True
                waiting += node.target.split(b"/")[::-1]
            elif node.children is None:
                raise _os_error(errno.ENOTDIR)
            else:
                at.append(node)
        return at[-1]

    # Entries

    def _put(self, parent: Node, name: bytes, node: Node) -> None:
        self._remove(parent, name)
        _children(parent)[name] = node

    def _remove(self, parent: Node, name: bytes) -> Node | None:
        found = _children(parent).pop(name, None)
        if found is not None and (found.children is not None or found.target is not None):
            self._folders = {b"": self.root}  # paths may mean other folders now
        return found

    def _whiteout(self, folder: bytes, name: bytes, mtime: int) -> None:
        if name == names.OPAQUE:
            self._folder(folder, mtime).xattrs[_OPAQUE_XATTR] = b"y"
            return
        if name.startswith(names.AUFS_OWN):
            return
        hidden = names.hidden_by(folder, name, _WHAT)
        path = folder + b"/" + hidden if folder else hidden
        if len(hidden) > layout.NAME_MAX:
            raise _os_error(errno.ENAMETOOLONG)
        parent = self._folder(folder, mtime)
        there = _children(parent).get(hidden)
        # What lower layers have is hidden, not what this one has.
        if there is not None and there.children is not None and self._own.reach(path):
            there.xattrs[_OPAQUE_XATTR] = b"y"
        elif not self._own.has(path):
            self._put(parent, hidden, Node(stat.S_IFCHR))

    def _node(self, entry: Entry) -> Node:
        for number in (entry.uid, entry.gid):
            if not 0 <= number < _IDS - 1:
                raise ValueError(f"owner {number}")
        _check_time(entry.mtime)
        node = Node(_TYPES[entry.type] | entry.mode, entry.uid, entry.gid, entry.mtime)
        self._set_xattrs(node, entry.xattrs)
        return node

    @staticmethod
    def _set_xattrs(node: Node, attributes: Mapping[str, bytes]) -> None:
        """Only files and folders have attributes of users."""
        plain = stat.S_ISREG(node.mode) or stat.S_ISDIR(node.mode)
        for key, value in attributes.items():
            if key.startswith(names.OVERLAY_XATTRS) or (key.startswith("user.") and not plain):
                continue
            node.xattrs[key] = value
        if node.xattrs:
            layout.pack_xattrs(node.xattrs)  # refused while the entry can be named

    def _file(self, entry: Entry, reader: TarReader) -> Node:
        node = self._node(entry)
        if entry.type == tar.REGULAR:
            node.size = entry.size
            if entry.size:
                self._place(node, entry, reader)
        elif entry.type == tar.SYMLINK:
            if not entry.link:
                raise InvalidArgument(f"{_WHAT} has a link to nothing: {show(entry.name)}")
            if len(entry.link) >= _PATH_MAX:
                raise _os_error(errno.ENAMETOOLONG)
            node.mode = stat.S_IFLNK | 0o777
            node.target, node.size = entry.link, len(entry.link)
        elif entry.type != tar.FIFO:
            node.place = layout.device(entry.major, entry.minor)
        return node

    def _directory(self, parent: Node, path: bytes, name: bytes, entry: Entry) -> None:
        there = _children(parent).get(name)
        node = self._node(entry)
        self.implicit.pop(path, None)
        if there is None or there.children is None:
            if there is not None and there.is_whiteout:
                node.xattrs[_OPAQUE_XATTR] = b"y"
            self._put(parent, name, node)
            return
        there.mode, there.uid, there.gid, there.mtime = node.mode, node.uid, node.gid, node.mtime
        self._set_xattrs(there, entry.xattrs)

    def _hard_link(self, parent: Node, path: bytes, name: bytes, entry: Entry) -> None:
        target = names.clean(entry.link, _WHAT)
        folder, _, base = target.rpartition(b"/")
        if not base:
            raise InvalidArgument(f"{_WHAT} has a hard link to nothing: {show(entry.name)}")
        if target == path:
            raise InvalidArgument(f"{_WHAT} has a hard link to itself: {show(entry.name)}")
        source = self._folder(folder, entry.mtime)
        node = _children(source).get(base)
        if node is None or (base == name and source is parent):
            raise InvalidArgument(
                f"{_WHAT} has a hard link {show(entry.name)} to {show(entry.link)}, "
                f"which is not in the {_WHAT}"
            )
        if node.children is not None:
            raise _os_error(errno.EPERM)
        self._put(parent, name, node)


def _children(folder: Node) -> dict[bytes, Node]:
    assert folder.children is not None
    return folder.children


def _check_time(nanoseconds: int) -> None:
    if not -_TIMES <= nanoseconds // 1_000_000_000 < _TIMES:
        raise ValueError("time out of range")


def _explain(error: OSError, path: bytes) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"no space left to unpack {_WHAT} entry {show(path)}")
    return InvalidArgument(f"{_WHAT} entry {show(path)} cannot be unpacked: {error.strerror}")


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
