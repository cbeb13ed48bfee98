"""Writes an image: contents as they come, then metadata, then the superblock at the front.

Contents are the tar itself where blocks are those of a tar (512 bytes; Linux 6.4), so that a byte
of a layer is written once, where the stream brings it; only what there is of sparse files is
written again, as far apart as it belongs. Elsewhere blocks are pages, and each content is written
at the start of one. Zeros are holes in the image.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from orlop.erofs import layout
from orlop.erofs.tree import Node
from orlop.errors import ResourceExhausted
from orlop.tar import zeros
from orlop.tar.reader import BLOCK, Entry, Read, TarReader
from orlop.tar.sparse import Segments

_BEGIN = 4096
"""Contents begin here: what is before has room for the superblock."""

_BLOCKS_MAX = (1 << 32) - 1

_FIRST = layout.INODE_SIZE // layout.SLOT
"""The root's slot. A slot is also what stat(2) tells as inode, and 0 would mean none."""


class Tar(NamedTuple):
    """Where an image has its layer: up to a block less before `end`, where that is no whole one."""

    begin: int
    end: int
    digest: bytes
    """How the layer's SHA-256 begins."""


def tar_of(fd: int) -> Tar | None:
    """The layer in an image, as it was read; None where it is not in there, or the image not ours.

    Raises ValueError for what is no image.
    """
    found = layout.parse_superblock(os.pread(fd, layout.SUPER_SIZE, layout.SUPER_OFFSET))
    if found is None or found.block_size != BLOCK:
        return None
    try:
        end = int(found.volume, 16) if found.volume else found.metadata
    except ValueError:
        raise ValueError("its superblock does not tell where the layer in it ends") from None
    return Tar(_BEGIN, end, found.uuid)


class Image:
    """An image being written to the file `fd`, in blocks of `block_size` bytes.

    Read the layer through `through`, and put its contents by `place`.
    """

    def __init__(self, fd: int, block_size: int) -> None:
        self._fd = fd
        self._block = block_size
        self._end = _BEGIN
        self._metadata = 0
        self._sparse: list[tuple[Node, int, Segments]] = []  # and where what there is begins

    def through(self, read: Read) -> Read:
        """`read`, with what it gives written on the way where the image holds the tar itself."""
        if self._block != BLOCK:
            return read

        def kept() -> bytes:
            piece = read()
            self._append(memoryview(piece))
            return piece

        return kept

    def place(self, node: Node, entry: Entry, reader: TarReader) -> None:
        if self._block == BLOCK:
            node.place = _BEGIN + reader.position
            if entry.segments is not None:
                self._sparse.append((node, node.place, entry.segments))
            return
        self._align(self._block)
        node.place = self._end
        for piece in reader.content():
            self._append(piece)

    def finish(self, root: Node, uuid: bytes) -> None:
        """Write what makes the contents a filesystem with the root folder `root`.

        Raises ResourceExhausted for more than such an image can hold.
        """
        os.ftruncate(self._fd, self._end)
        # Metadata begins where the tar ends, unless what is spread out comes between.
        volume = b"%016x" % self._end if self._sparse else b""
        for node, begin, segments in self._sparse:
            self._spread(node, begin, segments)
        self._align(self._block)
        self._check_size()
        self._metadata = begin = self._end
        nodes = _number(root)
        last = nodes[-1]
        data = begin + (last.slot * layout.SLOT + _inode_size(last))
        self._write_metadata(nodes, data + -data % self._block)
        self._align(_BEGIN)
        self._check_size()
        os.ftruncate(self._fd, self._end)
        first = layout.superblock(
            block_size=self._block,
            metadata=begin,
            root=root.slot,
            inodes=len(nodes),
            size=self._end,
            uuid=uuid,
            volume=volume,
        )
        os.pwrite(self._fd, first, layout.SUPER_OFFSET)

    def offset(self, node: Node) -> int:
        """Where the inode of a node is, after `finish`; -1 if it is none of the image's."""
        return self._metadata + node.slot * layout.SLOT if node.slot >= 0 else -1

    def _check_size(self) -> None:
        if self._end // self._block > _BLOCKS_MAX:
            raise ResourceExhausted(
                f"layer takes {self._end} bytes: no image with blocks of {self._block} has as many"
            )

    def _spread(self, node: Node, begin: int, segments: Segments) -> None:
        """Write a sparse file, which the image has from `begin` on without its holes."""
        self._align(self._block)
        node.place = start = self._end
        for offset, length in segments:
            self._end = start + offset
            end = begin + length
            while begin < end:
                piece = os.pread(self._fd, min(end - begin, zeros.LONGEST), begin)
                self._append(memoryview(piece))
                begin += len(piece)
        self._end = start + node.size

    def _write_metadata(self, nodes: list[Node], data: int) -> None:
        """All inodes, and the data of folders and links behind them, from the offset `data` on."""
        inodes = [bytes(_FIRST * layout.SLOT)]
        contents: list[bytes] = []
        parents = _parents(nodes)
        for number, node in enumerate(nodes, 1):
            content, size, place = b"", node.size, node.place
            if node.children is not None:
                content = self._directory(node, parents[node.slot])
            elif node.target is not None:
                content = node.target
            elif stat.S_ISREG(node.mode):
                place //= self._block
            if content:
                size, place = len(content), data // self._block
                contents.append(content.ljust(size + -size % self._block, b"\0"))
                data += len(contents[-1])
            xattrs = layout.pack_xattrs(node.xattrs) if node.xattrs else b""
            packed = layout.inode(
                mode=node.mode,
                size=size,
                place=place,
                number=number,
                uid=node.uid,
                gid=node.gid,
                mtime=node.mtime,
                links=node.links,
                xattrs=xattrs,
            )
            inodes.append(packed.ljust(_aligned(len(packed)), b"\0") if xattrs else packed)
        self._append(memoryview(b"".join(inodes)))
        self._align(self._block)
        self._append(memoryview(b"".join(contents)))

    def _directory(self, node: Node, parent: Node) -> bytes:
        assert node.children is not None
        entries = [(name, child.slot, child.mode) for name, child in node.children.items()]
        entries += [(b".", node.slot, node.mode), (b"..", parent.slot, parent.mode)]
        entries.sort()
        return layout.directory(entries, self._block)

    def _append(self, data: memoryview) -> None:
        if zeros.are_hole(data):
            self._end += len(data)
            return
        while data:
            done = os.pwrite(self._fd, data, self._end)
            self._end += done
            data = data[done:]

    def _align(self, size: int) -> None:
        """Leave a hole up to the next multiple of `size`."""
        self._end += -self._end % size


def _number(root: Node) -> list[Node]:
    """Every node once, with its place among the inodes and its count of links set."""
    nodes: list[Node] = []
    slot = _FIRST
    for node in _walk(root):
        if node.slot >= 0:
            node.links += 1
            continue
        node.slot, node.links = slot, 1
        slot += _inode_size(node) // layout.SLOT
        nodes.append(node)
        if node.children is not None:
            node.links = 2 + sum(c.children is not None for c in node.children.values())
    return nodes


def _walk(root: Node) -> Iterator[Node]:
    """A node for each name below the root, which is first."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if node.children:
            waiting += node.children.values()


def _parents(nodes: list[Node]) -> dict[int, Node]:
    """The parent of each folder, by the folder's slot; the root's is the root."""
    found = {nodes[0].slot: nodes[0]}
    for node in nodes:
        if node.children:
            found.update((c.slot, node) for c in node.children.values() if c.children is not None)
    return found


def _inode_size(node: Node) -> int:
    """No inode shares its 64 bytes, so that none lies across the end of a block."""
    if not node.xattrs:
        return layout.INODE_SIZE
    return _aligned(layout.INODE_SIZE + len(layout.pack_xattrs(node.xattrs)))


def _aligned(size: int) -> int:
    return size + -size % layout.INODE_SIZE
