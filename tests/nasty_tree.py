"""A tree of all that a filesystem can hold, and all that can happen to it."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from pathlib import Path

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(user: int, access: int) -> bytes:
    """An access list: the owner may all, the group reads, another `user` has `access`."""
    nobody = 0xFFFFFFFF
    entries = (
        (1, 7, nobody), (2, access, user), (4, 4, nobody), (16, 7, nobody), (32, 0, nobody)
    )  # fmt: skip
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


LONG = "long-" * 24 + "name"


def build(root: Path) -> None:
    """What is there before."""
    for name in ("kept", "gone/deep", "emptied", "replaced", "swapped", "links", "odd", "touched"):
        (root / name).mkdir(parents=True)
    _file(root / "kept/file", b"kept")
    _file(root / "kept/second", b"whole second", mtime=1_500_000_000 * 10**9)
    _file(root / "gone/deep/file", b"x")
    _file(root / "gone/other", b"x")
    for number in range(5):
        _file(root / f"emptied/{number}", b"%d" % number)
    _file(root / "replaced/old", b"old")
    _file(root / "swapped/to-folder", b"file")
    (root / "swapped/to-file").mkdir()
    _file(root / "swapped/to-file/inner", b"inner")
    (root / "swapped/to-link").mkdir()
    _file(root / "swapped/to-link/inner", b"inner")
    (root / "swapped/from-link").symlink_to("/etc/passwd")
    _file(root / "links/a", b"linked")
    os.link(root / "links/a", root / "links/b")
    os.link(root / "links/a", root / "kept/c")
    _file(root / "links/before", b"one name so far")
    (root / "links/sym").symlink_to("a")
    os.mkfifo(root / "odd/fifo")
    os.mknod(root / "odd/device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    _file(root / "odd/mode", b"mode")
    _file(root / "odd/owner", b"owner")
    _file(root / "odd/attribute", b"attribute")
    _file(root / "odd/same-size", b"AAAA", mtime=1_600_000_000 * 10**9)
    _file(root / "odd/grown", b"short")
    _file(root / "odd/list", b"for some")
    _file(root / "odd/no-list", b"for some no more")
    os.setxattr(root / "odd/no-list", ACCESS, acl(1000, 6))
    for name in ("shared", "not-shared"):
        (root / name).mkdir(0o750)
        _file(root / name / "before", b"for nobody else")
        os.setxattr(root / name, DEFAULT, acl(1001, 7))
        os.setxattr(root / name, ACCESS, acl(1002, 5))
    _sparse(root / "odd/holes", [0, 3 << 20], 5 << 20)
    _sparse(root / "odd/same-holes", [1 << 20], 3 << 20, mtime=1_600_000_000 * 10**9)
    _sparse(root / "odd/other-holes", [1 << 20], 3 << 20, mtime=1_600_000_000 * 10**9)


def change(root: Path) -> None:
    """What becomes of it."""
    shutil.rmtree(root / "gone")
    for entry in (root / "emptied").iterdir():
        entry.unlink()
    shutil.rmtree(root / "replaced")
    (root / "replaced").mkdir(mode=0o750)
    _file(root / "replaced/new", b"new")
    (root / "swapped/to-folder").unlink()
    (root / "swapped/to-folder/in").mkdir(parents=True)
    _file(root / "swapped/to-folder/in/file", b"x")
    shutil.rmtree(root / "swapped/to-file")
    _file(root / "swapped/to-file", b"now a file")
    shutil.rmtree(root / "swapped/to-link")
    (root / "swapped/to-link").symlink_to("../kept")
    (root / "swapped/from-link").unlink()
    _file(root / "swapped/from-link", b"no link any more")
    os.link(root / "links/before", root / "kept/after")
    os.link(root / "links/b", root / "odd/d")
    (root / "links/sym").unlink()
    (root / "links/sym").symlink_to("b")
    (root / "odd/mode").chmod(0o6751)
    os.chown(root / "odd/owner", 3_000_000_000, 2_500_000)
    (root / "odd/owner").chmod(0o4755)
    os.setxattr(root / "odd/attribute", "user.note", b"a\nb=\0c")
    os.setxattr(root / "odd/attribute", "security.capability", CAPABILITY)
    _file(root / "odd/same-size", b"BBBB", mtime=1_600_000_000 * 10**9)
    with (root / "odd/grown").open("ab") as file:
        file.write(b" no more")
    os.utime(root / "touched", ns=(5, 1_234_567_890_123_456_789))
    # overlayfs refuses lists while a file is still below, on a filesystem that takes none (erofs).
    for name in ("odd/list", "odd/no-list", "not-shared"):
        (root / name).chmod(0o700)
    os.setxattr(root / "odd/list", ACCESS, acl(1003, 6))
    os.removexattr(root / "odd/no-list", ACCESS)
    (root / "odd/no-list").chmod(0o644)
    for name in (DEFAULT, ACCESS):
        os.removexattr(root / "not-shared", name)
    (root / "not-shared").chmod(0o711)
    _file(root / "shared/with", b"as the folder says")
    _file(root / "shared/without", b"a list is not for all")
    os.removexattr(root / "shared/without", ACCESS)
    (root / "shared/without").chmod(0o640)
    (root / "shared/below").mkdir()
    (root / "shared/plain").mkdir()
    for name in (DEFAULT, ACCESS):
        os.removexattr(root / "shared/plain", name)
    _sparse(root / "odd/holes", [4 << 20], 7 << 20)
    _sparse(root / "odd/other-holes", [2 << 20], 3 << 20, mtime=1_600_000_000 * 10**9)
    new = root / "new"
    new.mkdir()
    os.setxattr(new, "user.folder", b"yes")
    new.chmod(0o3777)
    os.mkfifo(new / "fifo", 0o640)
    os.mknod(new / "device", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    (new / "dangling").symlink_to("x" * 300)
    os.chown(new / "dangling", 12, 34, follow_symlinks=False)
    _file(new / "früh", b"before the epoch", mtime=-1_500_000_000)
    _file(new / "late", b"after 2242", mtime=9_000_000_000 * 10**9 + 7)
    (new / LONG / LONG).mkdir(parents=True)
    _file(new / LONG / LONG / "file", b"deep")
    _file(Path(os.fsdecode(os.fsencode(new) + b"/\xff\xfe not utf-8")), b"name")
    _file(new / "big", os.urandom(1 << 20) + bytes(3 << 20))
    _file(new / "empty", b"")
    _sparse(new / "nothing", [], 9_000_001)
    (new / "shared").mkdir()
    _file(new / "shared/file", b"for nobody else")
    os.setxattr(new / "shared", DEFAULT, acl(1004, 7))
    _file(new / "first", b"twins")
    os.link(new / "first", new / "second")
    (new / "link-1").symlink_to("first")
    os.link(new / "link-1", new / "link-2", follow_symlinks=False)


def _file(path: Path, data: bytes, mtime: int = 1_700_000_000_123_456_789) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(mtime, mtime))


def _sparse(path: Path, places: list[int], size: int, mtime: int = 1_700_000_000) -> None:
    """A file of holes, but for some data at each of the places."""
    with path.open("r+b" if path.exists() else "wb") as file:
        for place in places:
            os.pwrite(file.fileno(), b"data" * 1000, place)
        file.truncate(size)
    os.utime(path, ns=(mtime, mtime))


def times(root: Path) -> dict[str, int]:
    """The time of each file and folder, to the nanosecond."""
    return {
        str(path.relative_to(root)): path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))
    }


def deep(root: Path, levels: int) -> None:
    """So many folders in each other, and a file in the last."""
    root.mkdir()
    at = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
