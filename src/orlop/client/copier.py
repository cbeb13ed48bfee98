"""One end of a copy, as a process of its own: `python -m orlop.client.copier JSON`.

It packs a file or folder of a container or of the host to its stdout, or unpacks what comes from
its stdin there, as a tar. Whatever it touches it sees from inside: paths are resolved as if the
container's root were all there is, and unpacking is confined to the folder concerned. An error is a
JSON object on stderr, with its code and message.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from orlop.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError, Unknown
from orlop.sys import process
from orlop.sys.fs import open_in_root
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import (
    MS_BIND,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    Mount,
    make_slave,
    mount,
    mount_all,
)
from orlop.tar.extract import Extractor
from orlop.tar.pack import Packer, explain
from orlop.tar.reader import DIRECTORY, LINK, Entry, TarReader
from orlop.tar.writer import TarWriter, Write

_O_FOLDER = os.O_PATH | os.O_DIRECTORY
_READ = 256 * 1024
_LINKS_MAX = 40
_NO_LIMIT = 1 << 62
PACK, UNPACK = "pack", "unpack"


def main() -> int:
    order = json.loads(sys.argv[1])
    try:
        root = _enter(order["place"])
        if not _ends_with(order["parent"]):
            return 1
        if order["action"] == PACK:
            _pack(order, root)
        else:
            _unpack(order, root)
    except BrokenPipeError:
        return 1  # the other end has failed, and says why
    except OrlopError as error:
        return _fail(error)
    except OSError as error:
        return _fail(Unknown(str(error)))
    return 0


def _fail(error: OrlopError) -> int:
    sys.stderr.write(json.dumps({"code": error.code, "message": error.message}))
    return 1


def _ends_with(parent: int) -> bool:
    """Be killed when our parent dies; False if it has died. A change of credentials undoes it."""
    process.set_parent_death_signal(signal.SIGKILL)
    return os.getppid() == parent


# Where


def _enter(place: dict[str, Any]) -> int:
    """A descriptor of the root of what is meant: a process's, that of mounts, or the host's."""
    if "pid" in place:
        pid = place["pid"]
        root = os.open(f"/proc/{pid}/root", _O_FOLDER)
        _join_user_namespace(pid)
        return root
    if "mounts" in place:
        return _mounted(place)
    return os.open("/", _O_FOLDER)


def _join_user_namespace(pid: int) -> None:
    """Owners are what they are inside; in our own namespace they cannot even be named."""
    if Path(f"/proc/{pid}/ns/user").samefile("/proc/self/ns/user"):
        return
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    _become_root_in(fd)
    os.close(fd)


def _become_root_in(namespace: int) -> None:
    process.setns(namespace, process.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _mounted(place: dict[str, Any]) -> int:
    """A stopped container's files and volumes, mounted where nobody else sees them."""
    process.unshare(process.CLONE_NEWNS)
    make_slave(Path("/"))
    folder = Path(place["folder"])
    mount("tmpfs", folder, "tmpfs", 0, "mode=0700")
    inner = folder / "root"
    inner.mkdir()
    mount_all([Mount(m[0], m[1], m[2], tuple(m[3])) for m in place["mounts"]], inner)
    root = os.open(inner, _O_FOLDER)
    for source, target, read_only in place["binds"]:
        _bind(root, source, target, read_only=read_only)
    if place["ids"]:
        with IdMapping(*place["ids"]).namespace() as namespace:
            _become_root_in(namespace)
    return root


def _bind(root: int, source: str, target: str, *, read_only: bool) -> None:
    try:
        fd = open_in_root(root, target.lstrip("/"), os.O_PATH)
    except FileNotFoundError:
        return  # the container has never run: the runtime makes it
    try:
        where = Path(f"/proc/self/fd/{fd}").readlink()
        mount(source, where, "", MS_BIND | MS_REC)
        if read_only:
            mount("none", where, "", MS_BIND | MS_REMOUNT | MS_RDONLY)
    except FileNotFoundError:
        raise NotFound(f'volume "{source}"') from None
    finally:
        os.close(fd)


class _Found:
    """A path: the folder it is in, its name there ("." for the root), and what it is, if it is."""

    def __init__(self, root: int, path: str, *, follow: bool) -> None:
        wants_folder = path.endswith(("/", "/."))
        place = os.path.normpath("/" + path.lstrip("/"))
        for _ in range(_LINKS_MAX):
            above, self.name = os.path.split(place.rstrip("/"))
            if self.name in ("", ".", ".."):
                above, self.name = place, "."
            self.folder = _open_folder(root, above, path)
            self.info = _stat(self.folder, self.name)
            linked = self.info is not None and stat.S_ISLNK(self.info.st_mode)
            if not linked or not (follow or wants_folder):
                break
            target = os.readlink(self.name, dir_fd=self.folder)
            place = target if target.startswith("/") else f"{above}/{target}"
        else:
            raise Unknown(f'"{path}": too many levels of symbolic links')
        self.is_folder = self.info is not None and stat.S_ISDIR(self.info.st_mode)
        if wants_folder and self.info is not None and not self.is_folder:
            raise InvalidArgument(f'"{path}" is not a folder')


def _open_folder(root: int, folder: str, about: str) -> int:
    try:
        return open_in_root(root, folder.lstrip("/") or ".", _O_FOLDER)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f'folder "{folder}" of "{about}"') from None
        raise explain(error, os.fsencode(folder.lstrip("/"))) from error


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


# Pack


def _pack(order: dict[str, Any], root: int) -> None:
    path = order["path"]
    found = _Found(root, path, follow=order["follow"])
    if found.info is None:
        raise NotFound(f'"{path}"')
    inside = path.endswith("/.") or path == "." or found.name == "."
    name = b"." if inside and found.is_folder else os.fsencode(_base_name(path))
    with open(1, "wb", _READ, closefd=False) as out:
        writer = TarWriter(_writer(out))
        Packer(writer).tree(name, found.folder, os.fsencode(found.name))
        writer.close()


def _writer(out: BinaryIO) -> Write:
    def write(data: bytes | memoryview) -> None:
        out.write(data)

    return write


def _base_name(path: str) -> str:
    """By what was asked for, whatever it is a link to."""
    return Path(os.path.normpath(f"/{path}")).name or "."


# Unpack


def _unpack(order: dict[str, Any], root: int) -> None:
    reader = TarReader(lambda: os.read(0, _READ), "archive")
    place = _Found(root, order["path"], follow=True)
    if order["as_is"]:
        if not place.is_folder:
            raise NotFound(f'folder "{order["path"]}", for an archive to be unpacked in,')
        _confine(place, inside=True)
        entries: _Entries | None = _Entries(reader, None, None)
    else:
        entries = _renamed(order, reader, place)
    if entries is None:
        return  # nothing comes: the other end says why
    extractor = Extractor(overlay=False, max_entries=_NO_LIMIT, layer=False)
    entries.owner = order["owner"]
    extractor.apply(entries)
    reader.drain()


def _renamed(order: dict[str, Any], reader: TarReader, place: _Found) -> _Entries | None:
    """Into a folder that is there, or as what is not there yet (docker cp's rules)."""
    path = order["path"]
    first = next(iter(reader), None)
    if first is None:
        return None
    comes_folder = first.type == DIRECTORY
    if place.is_folder:
        _confine(place, inside=True)
        return _Entries(reader, first, None)
    if place.info is None and path.endswith("/") and not comes_folder:
        raise NotFound(f'folder "{path}"')
    if place.info is not None and comes_folder:
        raise FailedPrecondition(f'"{path}" is a file, which a folder cannot take the place of')
    _confine(place, inside=False)
    return _Entries(reader, first, os.fsencode(place.name))


def _confine(place: _Found, *, inside: bool) -> None:
    """Make the folder concerned all there is."""
    folder = place.folder
    if inside:
        folder = os.open(place.name, _O_FOLDER | os.O_NOFOLLOW, dir_fd=place.folder)
    os.fchdir(folder)
    os.chroot(".")
    # A module that is not loaded yet would come from the files of others.
    sys.path.clear()
    sys.meta_path.clear()


class _Entries:
    """An archive's entries, the `first` of which has been read, under another name and owner."""

    def __init__(self, reader: TarReader, first: Entry | None, name: bytes | None) -> None:
        self._reader = reader
        self._first = first
        self._old = first.name.rstrip(b"/") if first is not None else b""
        self._new = name
        self.owner: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Entry]:
        if self._first is not None:
            yield self._changed(self._first)
        for entry in self._reader:
            yield self._changed(entry)

    def content(self) -> Iterator[memoryview]:
        return self._reader.content()

    def _changed(self, entry: Entry) -> Entry:
        if self._new is not None:
            entry.name = self._new + entry.name.rstrip(b"/")[len(self._old) :]
            if entry.type == LINK:
                entry.link = self._new + entry.link[len(self._old) :]
        if self.owner is not None:
            entry.uid, entry.gid = self.owner
        return entry


if __name__ == "__main__":
    sys.exit(main())
