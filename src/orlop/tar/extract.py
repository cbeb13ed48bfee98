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
from orlop.tar import names, zeros
from orlop.tar import reader as tar
from orlop.tar.bounds import Bounds
from orlop.tar.default_lists import DefaultLists
from orlop.tar.names import show as _show
from orlop.tar.reader import Entry

# Read while there still is a /proc. In a user namespace overlayfs is mounted with `userxattr`, and
# devices cannot be made.
_IN_USER_NAMESPACE = in_user_namespace()
_OPAQUE_XATTR = f"{'user' if _IN_USER_NAMESPACE else 'trusted'}.overlay.opaque"

_OPEN_FOLDERS = 64
_FOLDER = os.O_PATH | os.O_DIRECTORY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTR = (errno.ENOTSUP, errno.EOPNOTSUPP)
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
        self._unpacked: set[bytes] = set()
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
        if self._layer and name.startswith(names.WHITEOUT):
            self._whiteout(folder, name)
            return
        parent = self._open_folder(folder)
        self._left_out.discard(path)
        try:
            self._make[entry.type](entry, parent, name, reader)
        except OSError as error:
            raise self._explain(error, path) from error
        except (OverflowError, ValueError) as error:
            raise InvalidArgument(
                f"{self._what} entry {_show(path)} has a value that no file can have: {error}"
            ) from error
        self._unpacked.add(path)
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
                    f"{self._what} entry leads out of the {self._what}: {_show(path)} goes "
                    f"through the link {_show(here)} to {_show(target)}"
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
            _set_xattr(fd, names.DEFAULT_ACL, acl, user=True)
        except OSError as error:
            raise self._explain(error, path) from error
        finally:
            os.close(fd)

    # Whiteouts

    def _whiteout(self, folder: bytes, name: bytes) -> None:
        if name == names.OPAQUE:
            parent = self._open_folder(folder)
            if self._overlay:
                self._set_opaque(b".", parent)
            else:
                self._clear(parent, folder)
            return
        if name.startswith(names.AUFS_OWN):
            return
        hidden = names.hidden_by(folder, name, self._what)
        path = folder + b"/" + hidden if folder else hidden
        if path in self._unpacked:
            return  # a whiteout hides what lower layers have, not what this one has
        parent = self._open_folder(folder)
        self._remove(parent, hidden)
        if self._overlay:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _clear(self, parent: int, folder: bytes) -> None:
        """Delete what lower layers had in a folder."""
        fd = os.open(b"/" + folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            there = [os.fsencode(name) for name in os.listdir(fd)]  # noqa: PTH208
        finally:
            os.close(fd)
        for name in there:
            path = folder + b"/" + name if folder else name
            if path not in self._unpacked:
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
                    f"{_show(entry.name)} is {kinds[0]}, which {kinds[1]} cannot take the place of"
                )
        self._remove(parent, name)

    def _regular(self, entry: Entry, parent: int, name: bytes, reader: Entries) -> None:
        special = entry.mode & _SPECIAL_BITS
        owned = entry.uid or entry.gid
        try:
            fd = os.open(name, _CREATE, entry.mode & ~_SPECIAL_BITS, dir_fd=parent)
        except FileExistsError:
            self._make_way(entry, parent, name)
            fd = os.open(name, _CREATE, entry.mode & ~_SPECIAL_BITS, dir_fd=parent)
        try:
            if _write(fd, reader.content()):
                os.ftruncate(fd, entry.size)
            if owned:
                os.fchown(fd, entry.uid, entry.gid)
            for key, value in entry.xattrs.items():
                _set_xattr(fd, key, value, user=True)
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
                if self._overlay and _is_whiteout(found):
                    self._set_opaque(name, parent)
        path = self._clean(entry.name)
        self.implicit.pop(path, None)
        self._defaults.forget(path)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchown(fd, entry.uid, entry.gid)
            if merged and self._layer:
                _remove_acls(fd)
            for key, value in entry.xattrs.items():
                if key == names.DEFAULT_ACL:
                    self._defaults.note(path, value)
                else:
                    _set_xattr(fd, key, value, user=True)
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
            raise InvalidArgument(f"{self._what} has a link to nothing: {_show(entry.name)}")
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
            raise InvalidArgument(f"{self._what} has a hard link to nothing: {_show(entry.name)}")
        own = self._clean(entry.name)
        if target == own:
            raise InvalidArgument(f"{self._what} has a hard link to itself: {_show(entry.name)}")
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
                f"{self._what} has a hard link {_show(entry.name)} to {_show(entry.link)}, "
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
        if not _is_whiteout(found):  # which hides what lower layers have
            self._remove(parent, name)

    def _attributes(self, entry: Entry, parent: int, name: bytes) -> None:
        """Owner, xattrs, mode and time of what is not opened: links and devices."""
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            path = b"/" + self._clean(entry.name)
            for key, value in entry.xattrs.items():
                _set_xattr(path, key, value, user=False)
        if entry.type != tar.SYMLINK and entry.mode & _SPECIAL_BITS:
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _clean(self, name: bytes) -> bytes:
        return names.clean(name, self._what)

    def _explain(self, error: OSError, path: bytes) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceExhausted(f"no space left to unpack {self._what} entry {_show(path)}")
        why = str(error.strerror)
        if error.errno == errno.EINVAL and _IN_USER_NAMESPACE:
            why += ": its owner may be beyond the ids of this user namespace"
        return InvalidArgument(f"{self._what} entry {_show(path)} cannot be unpacked: {why}")


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


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _remove_acls(fd: int) -> None:
    try:
        there = os.listxattr(fd)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return
        raise
    for key in there:
        if key in (names.ACCESS_ACL, names.DEFAULT_ACL):
            os.removexattr(fd, key)


def _set_xattr(target: int | bytes, key: str, value: bytes, *, user: bool) -> None:
    """Where the filesystem has none, or the kernel none of that kind here, go without."""
    if key.startswith(names.OVERLAY_XATTRS):
        return
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as error:
        without = error.errno in _NO_XATTR
        if not without and not (
            error.errno == errno.EPERM and key.startswith("user.") and not user
        ):
            raise


def _write(fd: int, content: Iterator[memoryview]) -> bool:
    """Write all but runs of zeros; whether it ends with such, and the file is too short so far."""
    hole = False
    for piece in content:
        hole = zeros.are_hole(piece)
        if hole:
            os.lseek(fd, len(piece), os.SEEK_CUR)
            continue
        rest = piece
        while rest:
            rest = rest[os.write(fd, rest) :]
    return hole
