"""Layers, member by member, and such as must be refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from typing import Any

import zstandard

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 1_500_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **fields: Any) -> Member:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return member(name, type=kind, linkname=target, mode=0o777)


def layer(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def slashes_in_front() -> bytes:
    """As ko writes names, and Go's tar package lets it."""
    return layer(
        folder("ko-app"),
        member("/ko-app/bin", b"x"),
        link("/ko-app/again", "/ko-app/bin", tarfile.LNKTYPE),
        folder("//var/run/ko"),
    )


def sparse(parts: str, size: int, **records: str) -> Member:
    """Eight bytes of a file in PAX 0.1, or another version by its `records`."""
    told = {"GNU.sparse.map": parts, "GNU.sparse.size": str(size), "GNU.sparse.name": "real"}
    return member("GNUSparseFile.0/real", b"12345678", pax_headers={**told, **records})


def _mapped(parts: bytes, data: bytes = b"") -> Member:
    """A file in PAX 1.0, whose map is in front of its `data`."""
    told = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"}
    return member("a", parts + data, pax_headers=told)


def old_sparse(parts: list[tuple[int, int]], size: int, more: bytes = b"") -> bytes:
    """Eight bytes of a file "old" in GNU's own format, with blocks of `more` parts in between."""
    info = tarfile.TarInfo("old")
    info.size, info.type, info.mode = 8, tarfile.GNUTYPE_SPARSE, 0o644
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for at, (offset, length) in enumerate(parts):
        header[386 + 24 * at : 410 + 24 * at] = b"%011o\0%011o\0" % (offset, length)
    header[482] = bool(more)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + more + b"12345678".ljust(512, b"\0") + bytes(1024)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "up": lambda: layer(member("../outside", b"x")),
    "up in the middle": lambda: layer(member("a/../../outside", b"x")),
    "through a link up": lambda: layer(link("a", "../.."), member("a/outside", b"x")),
    "through a deep link up": lambda: layer(
        folder("d"), link("d/a", "../../.."), member("d/a/outside", b"x")
    ),
    "hard link up": lambda: layer(link("a", "../outside", tarfile.LNKTYPE)),
    "hard link to nothing": lambda: layer(link("a", "b", tarfile.LNKTYPE)),
    "hard link to itself": lambda: layer(link("a", "a", tarfile.LNKTYPE)),
    "whiteout of the parent": lambda: layer(member("d/.wh..", b"")),
    "whiteout of nothing": lambda: layer(member(".wh.", b"")),
    "file as folder": lambda: layer(member("a", b"x"), member("a/b", b"x")),
    "owner that no file can have": lambda: layer(member("a", uid=1 << 40)),
    "unknown type": lambda: layer(member("a", type=b"Z")),
    "name with a zero": lambda: layer(member("x", pax_headers={"path": "a\0b"})),
    "truncated": lambda: layer(member("a", b"x" * 5000))[:2000],
    "wrong checksum": lambda: b"z" + layer(member("a", b"x"))[1:],
    "not a tar": lambda: b"surely not a tar archive" * 100,
    "cut-off gzip": lambda: gzip.compress(layer(member("a", os.urandom(50_000))))[:-5000],
    "damaged gzip": lambda: gzip.compress(layer(member("a", b"x" * 50_000)))[:40] + b"\xff" * 99,
    "damaged zstd": lambda: (
        zstandard.compress(layer(member("a", os.urandom(9000))))[:50] + b"\xff" * 9000
    ),
    "bomb": lambda: gzip.compress(layer(member("a", b"x" * (80 << 20)))),
    "zstd bomb": lambda: zstandard.compress(layer(member("a", b"x" * (80 << 20)))),
    "bomb of zeros": lambda: gzip.compress(layer(member("a", bytes(80 << 20)))),
    "zstd bomb of zeros": lambda: zstandard.compress(layer(member("a", bytes(80 << 20)))),
    "sparse parts that overlap": lambda: layer(sparse("0,6,5,2", 20)),
    "sparse parts out of order": lambda: layer(sparse("10,4,0,4", 20)),
    "sparse part beyond the end": lambda: layer(sparse("0,4,10,4", 12)),
    "sparse part before the beginning": lambda: layer(sparse("-4,8", 20)),
    "sparse part of less than nothing": lambda: layer(sparse("0,12,12,-4", 20)),
    "sparse parts of more than there is": lambda: layer(sparse("0,9,9,4", 20)),
    "sparse parts of less than there is": lambda: layer(sparse("0,2", 20)),
    "sparse half a part": lambda: layer(sparse("0,4,8", 20)),
    "sparse words": lambda: layer(sparse("zero,8", 20)),
    "sparse without a size": lambda: layer(
        member("a", b"x" * 8, pax_headers={"GNU.sparse.map": "0,8"})
    ),
    "sparse of an unknown version": lambda: layer(
        sparse("0,8", 20, **{"GNU.sparse.major": "2", "GNU.sparse.minor": "0"})
    ),
    "sparse folder": lambda: layer(
        folder("a", pax_headers={"GNU.sparse.map": "", "GNU.sparse.size": "9"})
    ),
    "sparse petabytes": lambda: layer(sparse("0,8", 1 << 50)),
    "sparse of many parts": lambda: layer(sparse("0,8" + ",8,0" * 70_000, 20)),
    "sparse map that breaks off": lambda: layer(_mapped(b"3\n0\n", bytes(507))),
    "sparse map without lines": lambda: layer(_mapped(b"1" * 5000, bytes(120))),
    "sparse map of too many parts": lambda: layer(_mapped(b"99999999\n" + b"0\n0\n" * 300)),
    "old sparse parts that overlap": lambda: old_sparse([(0, 6), (5, 2)], 20),
    "old sparse without an end": lambda: (
        old_sparse([(0, 8)] * 4, 20, more=b"0".rjust(12, b"0") * 42 + b"\1" + bytes(7))[:512]
        + (b"00000000000\0" * 42 + b"\1" + bytes(7)) * 5000
    ),
    "old sparse that breaks off": lambda: old_sparse([(0, 8)], 20, more=bytes(512))[:512],
    "too many": lambda: layer(*(member(f"f{n}") for n in range(5001))),
    "endless extended header": lambda: (
        tarfile.TarInfo("x").tobuf()[:0] + _header(size=1 << 30, kind=b"x")
    ),
}


def _header(size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
