"""Mounts: from fstab-like options to system calls, and away again."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from orlop.errors import InvalidArgument
from orlop.sys.fs import open_in_root
from orlop.sys.idmap import IdMapping
from orlop.sys.libc import call, syscall
from orlop.sys.libc import path as encode
from orlop.sys.overlay import mount_long

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

_LOWER = "lowerdir="
_VOLATILE = "volatile"
LOOP = "loop"
"""Option of a mount whose source is a file, and is to be a loop device."""
_BY_PROGRAM = ("fuse.", "fuse3.")
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# Option name: does it clear, and which flag.
_FLAGS = {
    "async": (True, MS_SYNCHRONOUS),
    "atime": (True, MS_NOATIME),
    "bind": (False, MS_BIND),
    "defaults": (False, 0),
    "dev": (True, MS_NODEV),
    "diratime": (True, MS_NODIRATIME),
    "dirsync": (False, MS_DIRSYNC),
    "exec": (True, MS_NOEXEC),
    "mand": (False, MS_MANDLOCK),
    "noatime": (False, MS_NOATIME),
    "nodev": (False, MS_NODEV),
    "nodiratime": (False, MS_NODIRATIME),
    "noexec": (False, MS_NOEXEC),
    "nomand": (True, MS_MANDLOCK),
    "norelatime": (True, MS_RELATIME),
    "nostrictatime": (True, MS_STRICTATIME),
    "nosuid": (False, MS_NOSUID),
    "rbind": (False, MS_BIND | MS_REC),
    "relatime": (False, MS_RELATIME),
    "remount": (False, MS_REMOUNT),
    "ro": (False, MS_RDONLY),
    "rw": (True, MS_RDONLY),
    "strictatime": (False, MS_STRICTATIME),
    "suid": (True, MS_NOSUID),
    "sync": (False, MS_SYNCHRONOUS),
}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
# mount(2) copies one page of options, and silently cuts what is longer.
_DATA_MAX = os.sysconf("SC_PAGE_SIZE") - 1
# A bind mount takes these only by a remount after it (mount(2), "Creating a bind mount").
_NEEDS_REMOUNT = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME


class Mount(NamedTuple):
    """One mount as snapshotters hand it out: type, source, submount below the root, options."""

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


class Parsed(NamedTuple):
    """Options sorted into what mount(2) takes."""

    flags: int
    propagation: int
    data: tuple[str, ...]


def parse_options(options: Sequence[str]) -> Parsed:
    """Sort fstab-like options into flags, propagation and filesystem data."""
    flags = propagation = 0
    data = []
    for option in options:
        if option in _FLAGS:
            clear, bits = _FLAGS[option]
            flags = flags & ~bits if clear else flags | bits
        elif option in _PROPAGATION:
            propagation |= _PROPAGATION[option]
        else:
            data.append(option)
    return Parsed(flags, propagation, tuple(data))


def mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    """mount(2); OSError names the target, and the source if that is a path."""
    call(
        "mount",
        ctypes.c_char_p(encode(source)),
        ctypes.c_char_p(encode(target)),
        ctypes.c_char_p(kind.encode()),
        ctypes.c_ulong(flags),
        ctypes.c_char_p(data.encode()) if data else None,
        about=f"{source} on {target}" if "/" in source else str(target),
    )


def make_slave(target: Path) -> None:
    """Stop mount events below `target` from reaching others; theirs still reach us.

    Without them, what others unmount would stay in use until we end.
    """
    mount("none", target, "", MS_SLAVE | MS_REC)


def make_private(target: Path) -> None:
    """Stop mount events below `target` from reaching others, and theirs from reaching us."""
    mount("none", target, "", MS_PRIVATE | MS_REC)


def mount_all(
    mounts: Sequence[Mount], target: Path, *, volatile: bool = False, scratch: Path | None = None
) -> None:
    """Mount a snapshot's mounts at `target`, in order; undone when one of them fails.

    Without `volatile` that option is left out: overlayfs would not mount them a second time. What
    is mounted in between is in `scratch`, or where temporary files are.
    """
    done: list[Path] = []
    try:
        for item in mounts:
            where = _inside(target, item.target) if item.target else target
            mount_one(item if volatile else _without_volatile(item), where, scratch)
            done.append(where)
    except BaseException:
        for where in reversed(done):
            unmount(where, MNT_DETACH)
        raise


def _without_volatile(item: Mount) -> Mount:
    if _VOLATILE not in item.options:
        return item
    return item._replace(options=tuple(each for each in item.options if each != _VOLATILE))


def _inside(root: Path, target: str) -> Path:
    """Where a mount goes in what is mounted at `root`, of whose links none leads out of it."""
    if root not in Path(os.path.normpath(f"{root}/{target}")).parents:
        raise InvalidArgument(f'mount target "{target}" leads out of "{root}"')
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(top, target, os.O_PATH)
    finally:
        os.close(top)
    try:
        return Path(f"/proc/self/fd/{fd}").readlink()
    finally:
        os.close(fd)


def mount_one(item: Mount, target: Path, scratch: Path | None = None) -> None:
    """Mount one entry at `target`, with remounts and propagation as its options need.

    `scratch` is as for `mount_all`.
    """
    if LOOP in item.options or item.type.startswith(_BY_PROGRAM):
        _mount_aided(item, target)
        return
    mapping, options = IdMapping.of(item.options)
    if mapping is not None:
        _mount_mapped(item._replace(options=tuple(options)), target, mapping, scratch)
        return
    parsed = parse_options(item.options)
    data = ",".join(parsed.data)
    if item.type == "overlay" and len(data) >= _DATA_MAX:
        mount_long(target, parsed.flags, parsed.data)
        return
    mount(item.source, target, item.type, parsed.flags & ~_bind_extras(parsed.flags), data)
    if parsed.flags & MS_BIND and parsed.flags & _NEEDS_REMOUNT:
        flags = parsed.flags & (_NEEDS_REMOUNT | MS_RELATIME) | MS_BIND | MS_REMOUNT
        mount("none", target, "", flags | _locked_flags(target))
    if parsed.propagation:
        mount("none", target, "", parsed.propagation)


def _mount_aided(item: Mount, target: Path) -> None:
    from orlop.sys import aided  # noqa: PLC0415 - hardly a shim needs it

    by_program = item.type.startswith(_BY_PROGRAM)
    (aided.by_program if by_program else aided.by_devices)(item, target)


def _mount_mapped(item: Mount, target: Path, mapping: IdMapping, scratch: Path | None) -> None:
    """A bind mount with its ids mapped, or an overlay with those of its lower folders."""
    if item.type != "overlay":
        mapping.mount(item.source, target)
        flags = parse_options(item.options).flags & _NEEDS_REMOUNT
        if flags:
            mount("none", target, "", flags | MS_BIND | MS_REMOUNT | _locked_flags(target))
        return
    lowers = [each for each in item.options if each.startswith(_LOWER)]
    with mapping.lowers(lowers[0].removeprefix(_LOWER).split(":"), scratch) as mapped:
        rest = [each for each in item.options if each not in lowers]
        plain = item._replace(options=(*rest, _LOWER + ":".join(mapped)))
        mount_one(plain, target)


def _bind_extras(flags: int) -> int:
    return _NEEDS_REMOUNT if flags & MS_BIND else 0


def _locked_flags(target: Path) -> int:
    """Flags that the bound mount has already: a remount must not drop them."""
    have = os.statvfs(target).f_flag
    return have & (MS_NOSUID | MS_NODEV | MS_NOEXEC)


def unmount(target: Path, flags: int = 0) -> None:
    """umount2(2), never following a link at `target`."""
    call(
        "umount2",
        ctypes.c_char_p(encode(target)),
        flags | UMOUNT_NOFOLLOW,
        about=str(target),
    )


def unmount_all(target: Path) -> None:
    """Unmount everything at and below `target`, newest first; nothing mounted is no error.

    Links on the way to it are followed, and it is none itself.
    """
    where = Path(os.path.realpath(target.parent), target.name)
    for point in reversed(list(mount_points(where))):
        try:
            unmount(point, MNT_DETACH)
        except (FileNotFoundError, OSError) as error:
            if isinstance(error, FileNotFoundError) or error.errno == 22:  # EINVAL: gone already
                continue
            raise


class Mounted(NamedTuple):
    """A line of the table of mounts: where, and what tells it from all others of this moment."""

    point: Path
    identity: str


def mount_points(below: Path) -> Iterator[Path]:
    """Mount points at and below a folder, in the order in which they were mounted.

    The folder's path must be without links.
    """
    return (each.point for each in mounted(below))


def mounted(below: Path) -> Iterator[Mounted]:
    """What is mounted at and below a folder, in the order in which it was (proc(5), mountinfo)."""
    wanted = str(below)
    with Path("/proc/self/mountinfo").open(errors="surrogateescape") as table:
        for line in table:
            number, _, device, root, point, *rest = line.split(" ")
            where = _unescape(point)
            if where == wanted or where.startswith(f"{wanted}/"):
                kind = rest[rest.index("-") + 1]
                yield Mounted(Path(where), f"{number} {device} {kind} {root}")


def _unescape(text: str) -> str:
    """Undo the octal escapes of /proc/self/mountinfo."""
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, char)
    return text


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): make `new_root` this mount namespace's root, the old one below `put_old`."""
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    syscall(
        number,
        ctypes.c_char_p(encode(new_root)),
        ctypes.c_char_p(encode(put_old)),
        about=new_root,
    )
