"""What looks like a bomb, and what only has many zeros."""

from __future__ import annotations

import os
from functools import cache

import pytest

from orlop.diff.compress import GZIP, ZSTD, compressor
from orlop.diff.decompress import decompress
from orlop.errors import ResourceExhausted
from orlop.tar import zeros

_MIB = 1 << 20


@cache
def _packed(kind: str, piece: bytes) -> bytes:
    """More than 1 GiB of such pieces, and something at both ends."""
    packer = compressor(kind)
    parts = [packer.compress(b"begin" * 1000)]
    parts += [packer.compress(piece * (_MIB // len(piece))) for _ in range(1100)]
    return b"".join([*parts, packer.compress(b"end" * 1000), packer.flush()])


def _unpacked(data: bytes, max_size: int, max_zeros: int = 0) -> int:
    pieces = iter([data[at : at + 100_000] for at in range(0, len(data), 100_000)] + [b""])
    size = 0
    plain = decompress(lambda: next(pieces), max_size=max_size, max_ratio=200, max_zeros=max_zeros)
    for piece in plain:
        assert 0 < len(piece) <= zeros.LONGEST
        size += len(piece)
    return size


@pytest.mark.parametrize("kind", [GZIP, ZSTD])
def test_zeros_are_no_bomb_for_who_makes_holes(kind: str) -> None:
    data = _packed(kind, bytes(1))
    assert len(data) * 200 < 1 << 30
    wanted = 1100 * _MIB + 8000
    assert _unpacked(data, max_size=10 * _MIB, max_zeros=1100 * _MIB) == wanted
    with pytest.raises(ResourceExhausted, match="looks like a decompression bomb"):
        _unpacked(data, max_size=1 << 40)
    with pytest.raises(ResourceExhausted, match="more than the 1048576000 bytes of zeros"):
        _unpacked(data, max_size=1 << 40, max_zeros=1000 * _MIB)


@pytest.mark.parametrize("kind", [GZIP, ZSTD])
def test_whatever_else_is_easy_to_compress_is_one(kind: str) -> None:
    data = _packed(kind, b"x")
    with pytest.raises(ResourceExhausted, match="looks like a decompression bomb"):
        _unpacked(data, max_size=1 << 40, max_zeros=1 << 40)
    with pytest.raises(ResourceExhausted, match="more than the 10485760 bytes that"):
        _unpacked(data, max_size=10 * _MIB, max_zeros=1 << 40)


def test_data_among_zeros_counts() -> None:
    piece = os.urandom(100) + bytes(zeros.LONGEST)
    packer = compressor(GZIP)
    data = packer.compress(piece * 100) + packer.flush()
    with pytest.raises(ResourceExhausted, match="bytes that the daemon"):
        _unpacked(data, max_size=20 * _MIB, max_zeros=1 << 40)
