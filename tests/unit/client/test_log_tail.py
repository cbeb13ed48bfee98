import os
from pathlib import Path

import pytest

from orlop.client import logs


@pytest.mark.parametrize(
    ("text", "lines", "tail"),
    [
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\n\n", 1, b"\n"),
        (b"a\nb\n", 0, b""),
        (b"", 3, b""),
    ],
)
def test_tail(tmp_path: Path, text: bytes, lines: int, tail: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert text[logs._tail_offset(fd, lines) :] == tail
    finally:
        os.close(fd)


def test_tail_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CHUNK", 8)
    text = b"".join(b"line %d\n" % i for i in range(50))
    path = tmp_path / "log"
    path.write_bytes(text)
    fd = os.open(path, os.O_RDONLY)
    try:
        for count in (1, 3, 49, 50, 51):
            wanted = b"".join(text.splitlines(keepends=True)[-count:])
            assert text[logs._tail_offset(fd, count) :] == wanted
    finally:
        os.close(fd)
