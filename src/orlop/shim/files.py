"""Small files by name. pathlib would cost every shim half a megabyte of memory of its own."""

from __future__ import annotations

import os

_CHUNK = 64 * 1024


def read_text(path: str) -> str:
    """The whole text of a small file; raises OSError."""
    return read_bytes(path).decode(errors="replace")


def read_bytes(path: str) -> bytes:
    """The whole of a small file; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _CHUNK):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def read_or_empty(path: str) -> str:
    """The text of a kernel file, "" if it is not there (any more)."""
    try:
        return read_text(path)
    except OSError:
        return ""


def write(path: str, data: bytes, *, create: bool = False) -> None:
    """Write to a file that is there, or make it anew (mode 0600); raises OSError."""
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
    fd = os.open(path, flags, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Remove a file; one that is not there is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
