"""Compression of layers that are made here.

The same bytes give the same bytes on one machine. isal has code for several processors, which need
not agree to the bit: what has to be the same everywhere is compared by the plain tar, or by zstd.
"""

from __future__ import annotations

from typing import Any

import zstandard
from isal import isal_zlib

PLAIN, GZIP, ZSTD = "", "gzip", "zstd"

# isal at 2 is five times as fast as zlib at 1, for as many bytes.
_GZIP_LEVEL, _GZIP_WINDOW = 2, 16 + 15
_ZSTD_LEVEL = 3


def compressor(compression: str) -> Any:
    """An object with `compress` and `flush` for PLAIN, GZIP or ZSTD; the same bytes each time."""
    if compression == GZIP:
        return isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    if compression == ZSTD:
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    return _Plain()


class _Plain:
    @staticmethod
    def compress(data: bytes) -> bytes:
        return data

    @staticmethod
    def flush() -> bytes:
        return b""
