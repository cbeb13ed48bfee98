"""What EROFS looks like on disk (Linux, fs/erofs/erofs_fs.h): the parts that images of ours have.

Every inode is an extended one with its extended attributes behind it, and its data, if any, lies
in consecutive blocks ("flat plain"). All numbers are little endian.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SUPER_OFFSET = 1024
SUPER_SIZE = 128
NAME_MAX = 255
INODE_SIZE = 64
SLOT = 32
"""Inodes are known by their offset in the metadata, in units of this."""

_MAGIC = 0xE0F5E1E2
_COMPAT_MTIME = 2
_EXTENDED_PLAIN = 1  # i_format: version in bit 0, data layout above it
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT = struct.Struct("<QHBx")
_XATTR = struct.Struct("<BBH")
_XATTR_HEADER = 12
_XATTR_VALUE_MAX = 0xFFFF
_XATTRS_MAX = _XATTR_HEADER + 4 * 0xFFFE

# The longest prefix of a name is kept as a number; those that are whole names come first.
_PREFIXES = (
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("user.", 1),
    ("trusted.", 4),
    ("security.", 6),
)
_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}


def superblock(
    *,
    block_size: int,
    metadata: int,
    root: int,
    inodes: int,
    size: int,
    uuid: bytes,
    volume: bytes = b"",
) -> bytes:
    """For metadata at the offset `metadata`, its root inode in slot `root`, in `size` bytes.

    `volume` is a name of at most 16 bytes, which the kernel does not look at.
    """
    return _SUPER.pack(
        _MAGIC,
        0,  # no checksum
        _COMPAT_MTIME,
        block_size.bit_length() - 1,
        0,
        root,
        inodes,
        0,
        0,
        size // block_size,
        metadata // block_size,
        0,
        uuid,
        volume,
        *(0,) * 9,
    )


class Super(NamedTuple):
    """What the superblock of an image of ours says: see `superblock`."""

    block_size: int
    metadata: int
    uuid: bytes
    volume: bytes


def parse_superblock(data: bytes) -> Super | None:
    """None where it is not ours; raises ValueError for what is no image."""
    fields = _SUPER.unpack(data) if len(data) == _SUPER.size else (0,) * 14
    magic, checksum, features, bits, *_, metadata, _, uuid, volume = fields[:14]
    if magic != _MAGIC:
        raise ValueError("it is no EROFS image")
    if (checksum, features) != (0, _COMPAT_MTIME):
        return None
    return Super(1 << bits, metadata << bits, uuid, volume.rstrip(b"\0"))


def inode(
    *,
    mode: int,
    size: int,
    place: int,
    number: int,
    uid: int,
    gid: int,
    mtime: int,
    links: int,
    xattrs: bytes,
) -> bytes:
    """An inode and its packed attributes; `place` is a block, or a device's number."""
    count = (len(xattrs) - _XATTR_HEADER) // 4 + 1 if xattrs else 0
    seconds, rest = divmod(mtime, 1_000_000_000)
    head = _INODE.pack(
        _EXTENDED_PLAIN, count, mode, 0, size, place, number, uid, gid, seconds, rest, links
    )
    return head + xattrs


def look(mode: int, uid: int, gid: int, mtime: int) -> tuple[tuple[int, bytes], ...]:
    """What to write where in an inode that is there, so that it looks so."""
    seconds, rest = divmod(mtime, 1_000_000_000)
    return (4, struct.pack("<H", mode)), (24, struct.pack("<IIqI", uid, gid, seconds, rest))


def device(major: int, minor: int) -> int:
    """A device's number as the kernel's new_encode_dev() has it; ValueError for one beyond it."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ValueError(f"device {major}:{minor}")
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def pack_xattrs(attributes: Mapping[str, bytes]) -> bytes:
    """Attributes as they follow an inode; those of namespaces that EROFS lacks are left out.

    Raises ValueError for what is too long.
    """
    parts = [bytes(_XATTR_HEADER)]
    for key in sorted(attributes):
        value = attributes[key]
        prefix, index = next((each for each in _PREFIXES if key.startswith(each[0])), ("", 0))
        if not prefix:
            continue
        name = os.fsencode(key.removeprefix(prefix))
        if len(os.fsencode(key)) > NAME_MAX or len(value) > _XATTR_VALUE_MAX:
            raise ValueError(f'attribute "{key}" is too long')
        entry = _XATTR.pack(len(name), index, len(value)) + name + value
        parts.append(entry + bytes(-len(entry) % 4))
    packed = b"".join(parts) if len(parts) > 1 else b""
    if len(packed) > _XATTRS_MAX:
        raise ValueError("too many attributes")
    return packed


def directory(entries: Sequence[tuple[bytes, int, int]], block_size: int) -> bytes:
    """A directory's data: `entries` are names, in order, with inode slots and modes.

    Each block has its entries first and then their names; only the last one is not filled up.
    """
    blocks = []
    begin = used = 0
    for at, (name, _, _) in enumerate(entries):
        needed = _DIRENT.size + len(name)
        if used + needed > block_size:
            blocks.append(_directory_block(entries[begin:at]).ljust(block_size, b"\0"))
            begin, used = at, 0
        used += needed
    blocks.append(_directory_block(entries[begin:]))
    return b"".join(blocks)


def _directory_block(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    heads = []
    offset = len(entries) * _DIRENT.size
    for name, slot, mode in entries:
        heads.append(_DIRENT.pack(slot, offset, _FILE_TYPES[stat.S_IFMT(mode)]))
        offset += len(name)
    return b"".join(heads) + b"".join([name for name, _, _ in entries])
