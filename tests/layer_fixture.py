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


HOSTILE: dict[str, Callable[[], bytes]] = {
    "up": lambda: layer(member("../outside", b"x")),
    "up in the middle": lambda: layer(member("a/../../outside", b"x")),
    "absolute": lambda: layer(member("/outside", b"x")),
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
    "bomb": lambda: gzip.compress(layer(member("a", bytes(80 << 20)))),
    "zstd bomb": lambda: zstandard.compress(layer(member("a", bytes(80 << 20)))),
    "too many": lambda: layer(*(member(f"f{n}") for n in range(5001))),
    "endless extended header": lambda: (
        tarfile.TarInfo("x").tobuf()[:0] + _header(size=1 << 30, kind=b"x")
    ),
}


def _header(size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
