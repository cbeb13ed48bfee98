"""Write the entries of an archive into the root directory of this process.

The process is confined to the target folder, so no path can lead out of it; the rules here are
about doing the right thing inside (OCI image spec, layer.md, "Applying Changesets").
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

from orlop.errors import InvalidArgument, ResourceExhausted
from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from orlop.sys.process import in_user_namespace
from orlop.sys.removal import remove_tree
from orlop.tar import names
from orlop.tar import reader as tar
from orlop.tar.bounds import Bounds
from orlop.tar.default_lists import DefaultLists
from orlop.tar.inodes import (
    is_folder,
    is_whiteout,
    names_in,
    remove_acls,
    set_xattr,
    write,
)
from orlop.tar.names import show
from orlop.tar.own_paths import OwnPaths
from orlop.tar.reader import Entry

# Read while there still is a /proc. In a user namespace overlayfs is mounted with `userxattr`, and
# devices cannot be made.
_IN_USER_NAMESPACE = in_user_namespace()
_OPAQUE_XATTR = f"{'user' if _IN_USER_NAMESPACE else 'trusted'}.overlay.opaque"

_OPEN_FOLDERS = 64
_FOLDER = os.O_PATH | os.O_DIRECTORY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL_BITS = 0o7000


class Entries(Protocol):
    """Entries one after the other, the content of each to be read before the next."""

    def __iter__(self) -> Iterator[Entry]: ...
    def content(self) -> Iterator[memoryview]: ...


class Extractor:
    """Writes what one archive holds. `implicit` collects folders that entries needed but the
    archive did not contain.

    In a `layer` some names mean deletions, and what is there gives way to an entry; otherwise a
    folder never gives way to a file, nor a file to a folder. `overlay` writes deletions as
    overlayfs has them, else files are deleted.
    """

    def __init__(self, *, overlay: bool, max_entries: int, layer: bool = True) -> None:
        self._overlay = overlay
        self._layer = layer
        self._what = "layer" if layer else "archive"
        self._bounds = Bounds(self._what, max_entries)
        self._root = os.open("/", _FOLDER)
        self._folders: OrderedDict[bytes, int] = OrderedDict()
        self._own = OwnPaths()
        self._left_out: set[bytes] = set()
        # Of folders, given to them last: what is made in them changes the one, and gets the other.
        self._times: dict[bytes, int] = {}
        self._defaults = DefaultLists()
        # A folder or link has been removed: cached descriptors may be of what is no longer there.
        self._stale = False
        self.implicit: dict[bytes, None] = {}
        self._make: dict[bytes, Callable[[Entry, int, bytes, Entries], None]] = {
            tar.REGULAR: self._regular,
            tar.DIRECTORY: self._directory,
            tar.SYMLINK: self._symlink,
            tar.LINK: self._hard_link,
            tar.CHAR: self._device,
            tar.BLOCK_DEVICE: self._device,
            tar.FIFO: self._device,
        }

    @property
    def entries(self) -> int:
        """How many there were, with the folders that they implied."""
        return self._bounds.entries

    def apply(self, reader: Entries) -> None:
        """Write all entries; raises InvalidArgument, ResourceExhausted or OSError."""
        os.umask(0)
        self._lift_default(b"")
        for entry in reader:
            self._bounds.entry()
            self._apply(entry, reader)
        for path, acl in self._defaults.items():
            self._set_default(path, acl)
        for path, mtime in self._times.items():
            self._set_folder_time(path, mtime)
        self._forget_folders()

    def _apply(self, entry: Entry, reader: Entries) -> None:
        path = self._clean(entry.name)
        if not path:
            return  # the root itself
        if self._stale:
            self._forget_folders()
        folder, _, name = path.rpartition(b"/")
        parent = self._open_folder(folder)
        try:
            if self._layer and name.startswith(names.WHITEOUT):
                self._whiteout(parent, folder, name)
                return
            self._left_out.discard(path)
            self._make[entry.type](entry, parent, name, reader)
        except OSError as error:
            raise self._explain(error, path) from error
        except (OverflowError, ValueError) as error:
            raise InvalidArgument(
                f"{self._what} entry {show(path)} has a value that no file can have: {error}"
            ) from error
        self._own.add(path, folder)
        if self._stale and entry.type != tar.DIRECTORY:  # a folder may have given way
            self._times.pop(path, None)
            self._defaults.forget(path)

    # Folders

    def _open_folder(self, path: bytes) -> int:
        """A descriptor of the folder `path`, from the cache or made on the way."""
        missing = []
        while (fd := self._find_folder(path)) is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for path in reversed(missing):
            fd = self._make_folder(path, fd)
        return fd

    def _find_folder(self, path: bytes) -> int | None:
        if not path:
            return self._root
        found = self._folders.get(path)
        if found is not None:
            self._folders.move_to_end(path)
            return found
        try:
            fd = openat2(self._root, os.fsdecode(path), _FOLDER, 0, RESOLVE_BENEATH)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise self._explain(error, path) from error
            fd = self._follow_links(path)
        self._lift_default(path)
        return self._keep_open(path, fd)

    def _make_folder(self, path: bytes, parent: int) -> int:
        self._bounds.implied(path)
        name = path.rpartition(b"/")[2]
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except OSError as error:
            raise self._explain(error, path) from error
        self.implicit[path] = None
        self._defaults.forget(path)  # of another that was here
        fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        return self._keep_open(path, fd)

    def _keep_open(self, path: bytes, fd: int) -> int:
        self._folders[path] = fd
        if len(self._folders) > _OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        return fd

    def _follow_links(self, path: bytes) -> int:
        """A path through an absolute link, which means the layer's root; or one that climbs out."""
        at: list[bytes] = []
        for part in path.split(b"/"):
            at.append(part)
            here = b"/" + b"/".join(at)
            try:
                target = os.readlink(here)  # noqa: PTH115 - names are bytes
            except OSError:
                continue  # not a link
            if not target.startswith(b"/") and _climbs(at[:-1], target):
                raise InvalidArgument(
                    f"{self._what} entry leads out of the {self._what}: {show(path)} goes "
                    f"through the link {show(here)} to {show(target)}"
                )
        try:
            return openat2(self._root, os.fsdecode(path), _FOLDER, 0, RESOLVE_IN_ROOT)
        except OSError as error:
            raise self._explain(error, path) from error

    def _forget_folders(self) -> None:
        """Close cached folders: one of them may have been replaced."""
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()
        self._stale = False

    def _set_folder_time(self, path: bytes, mtime: int) -> None:
        try:
            os.utime(path, ns=(mtime, mtime), dir_fd=self._root, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            pass  # replaced by a later entry

    def _lift_default(self, path: bytes) -> None:
        if self._layer and not self._overlay:
            self._defaults.lift(path)

    def _set_default(self, path: bytes, acl: bytes) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            fd = openat2(self._root, os.fsdecode(path) or ".", flags, 0, RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return  # replaced by a later entry
            raise self._explain(error, path) from error
        try:
            set_xattr(fd, names.DEFAULT_ACL, acl, user=True)
        except OSError as error:
            raise self._explain(error, path) from error
        finally:
            os.close(fd)

    # Whiteouts. They hide what lower layers have, not what this one has, whichever comes first.

    def _whiteout(self, parent: int, folder: bytes, name: bytes) -> None:
        if name == names.OPAQUE:
            self._make_opaque(folder)
            return
        if name.startswith(names.AUFS_OWN):
            return
        hidden = names.hidden_by(folder, name, self._what)
        path = folder + b"/" + hidden if folder else hidden
        if self._own.reach(path) and is_folder(parent, hidden):
            self._make_opaque(path)
        elif not self._own.has(path):
            self._remove(parent, hidden)
            if self._overlay:
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _make_opaque(self, folder: bytes) -> None:
        if self._overlay:
            self._set_opaque(b".", self._open_folder(folder))
        else:
            self._clear(folder)

    def _clear(self, folder: bytes) -> None:
        """Delete what lower layers had in a folder, and in what of it is this layer's as well."""
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            parent = self._open_folder(folder)
            for name in names_in(parent):
                path = folder + b"/" + name if folder else name
                if self._own.reach(path) and is_folder(parent, name):
                    waiting.append(path)
                elif not self._own.has(path):
                    self._remove(parent, name)

    def _remove(self, parent: int, name: bytes) -> None:
        """Remove whatever has the name, if anything has."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            remove_tree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            self._stale = True

    # Entries

    def _make_way(self, entry: Entry, parent: int, name: bytes) -> None:
        """Remove what has the name of an entry, if it may give way."""
        if not self._layer:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            there, comes = stat.S_ISDIR(found.st_mode), entry.type == tar.DIRECTORY
            if there != comes:
                kinds = ("a folder", "a file") if there else ("a file", "a folder")
                raise InvalidArgument(
                    f"{show(entry.name)} is {kinds[0]}, which {kinds[1]} cannot take the place of"
                )
        self._remove(parent, name)

    def _regular(self, entry: Entry, parent: int, name: bytes, reader: Entries) -> None:
        special = entry.mode & _SPECIAL_BITS
        try:
            fd = os.open(name, _CREATE, entry.mode & ~_SPECIAL_BITS, dir_fd=parent)
        except FileExistsError:
            self._make_way(entry, parent, name)
            fd = os.open(name, _CREATE, entry.mode & ~_SPECIAL_BITS, dir_fd=parent)
        try:
            if write(fd, reader.content()):
                os.ftruncate(fd, entry.size)
            made = os.fstat(fd)  # its group may be that of a folder with the setgid bit
            if (made.st_uid, made.st_gid) != (entry.uid, entry.gid):
                os.fchown(fd, entry.uid, entry.gid)
            for key, value in entry.xattrs.items():
                set_xattr(fd, key, value, user=True)
            if special:
                os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, parent: int, name: bytes, reader: Entries) -> None:
        del reader
        merged = False
        try:
            os.mkdir(name, entry.mode, dir_fd=parent)
        except FileExistsError:
            merged = True
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                self._make_way(entry, parent, name)
                os.mkdir(name, entry.mode, dir_fd=parent)
                if self._overlay and is_whiteout(found):
                    self._set_opaque(name, parent)
        path = self._clean(entry.name)
        self.implicit.pop(path, None)
        self._defaults.forget(path)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchown(fd, entry.uid, entry.gid)
            if merged and self._layer:
                remove_acls(fd)
            for key, value in entry.xattrs.items():
                if key == names.DEFAULT_ACL:
                    self._defaults.note(path, value)
                else:
                    set_xattr(fd, key, value, user=True)
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)
        self._times[path] = entry.mtime

    @staticmethod
    def _set_opaque(name: bytes, parent: int) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.setxattr(fd, _OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)

    def _symlink(self, entry: Entry, parent: int, name: bytes, reader: Entries) -> None:
        del reader
        if not entry.link:
            raise InvalidArgument(f"{self._what} has a link to nothing: {show(entry.name)}")
        try:
            os.symlink(entry.link, name, dir_fd=parent)
        except FileExistsError:
            self._make_way(entry, parent, name)
            os.symlink(entry.link, name, dir_fd=parent)
        self._attributes(entry, parent, name)

    def _hard_link(self, entry: Entry, parent: int, name: bytes, reader: Entries) -> None:
        del reader
        target = self._clean(entry.link)
        folder, _, base = target.rpartition(b"/")
        if not base:
            raise InvalidArgument(f"{self._what} has a hard link to nothing: {show(entry.name)}")
        own = self._clean(entry.name)
        if target == own:
            raise InvalidArgument(f"{self._what} has a hard link to itself: {show(entry.name)}")
        if target in self._left_out:
            self._leave_out(entry, parent, name)
            return
        source = self._open_folder(folder)
        parent = self._open_folder(own.rpartition(b"/")[0])  # may have left the cache meanwhile
        try:
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            self._make_way(entry, parent, name)
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise InvalidArgument(
                f"{self._what} has a hard link {show(entry.name)} to {show(entry.link)}, "
                f"which is not in the {self._what}"
            ) from None

    def _device(self, entry: Entry, parent: int, name: bytes, reader: Entries) -> None:
        del reader
        kind = {tar.CHAR: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK}.get(
            entry.type, stat.S_IFIFO
        )
        if _IN_USER_NAMESPACE and kind != stat.S_IFIFO:
            self._leave_out(entry, parent, name)
            return
        device = os.makedev(entry.major, entry.minor)
        try:
            os.mknod(name, kind | entry.mode, device, dir_fd=parent)
        except FileExistsError:
            self._make_way(entry, parent, name)
            os.mknod(name, kind | entry.mode, device, dir_fd=parent)
        self._attributes(entry, parent, name)

    def _leave_out(self, entry: Entry, parent: int, name: bytes) -> None:
        """Go without a device, or a link to one; in a layer, without what it would replace too."""
        self._left_out.add(self._clean(entry.name))
        if not self._layer:
            return
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not is_whiteout(found):  # which hides what lower layers have
            self._remove(parent, name)

    def _attributes(self, entry: Entry, parent: int, name: bytes) -> None:
        """Owner, xattrs, mode and time of what is not opened: links and devices."""
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            path = b"/" + self._clean(entry.name)
            for key, value in entry.xattrs.items():
                set_xattr(path, key, value, user=False)
        if entry.type != tar.SYMLINK and entry.mode & _SPECIAL_BITS:
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _clean(self, name: bytes) -> bytes:
        return names.clean(name, self._what)

    def _explain(self, error: OSError, path: bytes) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceExhausted(f"no space left to unpack {self._what} entry {show(path)}")
        why = str(error.strerror)
        if error.errno == errno.EINVAL and _IN_USER_NAMESPACE:
            why += ": its owner may be beyond the ids of this user namespace"
        return InvalidArgument(f"{self._what} entry {show(path)} cannot be unpacked: {why}")


def _climbs(folder: list[bytes], target: bytes) -> bool:
    """Whether a relative link in `folder` leads above the root."""
    depth = len(folder)
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
        elif part not in (b"", b"."):
            depth += 1
        if depth < 0:
            return True
    return False
