"""Layers that are kept as images, and what became of them."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.erofs import layout
from orlop.erofs.image import Image
from orlop.erofs.tree import LayerTree
from orlop.errors import Unavailable
from orlop.tar.reader import TarReader
from orlop.upkeep.reading import Reading
from tests.layer_fixture import layer, member

_LAYER = layer(member("a", b"x" * 5000), member("b", bytes(70_000)))
_BEGIN = 4096


def _image(path: Path, data: bytes, block_size: int = 512) -> Path:
    pieces = (data[start : start + 3000] for start in range(0, len(data), 3000))
    with path.open("w+b") as file:
        image = Image(file.fileno(), block_size)
        reader = TarReader(image.through(lambda: next(pieces, b"")))
        tree = LayerTree(image.place, max_entries=100)
        tree.read(reader)
        reader.drain()
        image.finish(tree.root, hashlib.sha256(data).digest()[:16])
    return path


def _problem(path: Path) -> str:
    return Reading(path.stat().st_size, lambda done, total: None).layer(path)


def _places(path: Path, begin: int, end: int) -> Iterator[int]:
    """Each place of an image in turn, at which it is another byte then."""
    good = path.read_bytes()
    for place in range(begin, end, 977):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        yield place
    path.write_bytes(good)


@pytest.mark.parametrize("more", [b"", b"x", b"x" * 700, bytes(100), b"x" * 511, bytes(5000)])
def test_a_byte_that_is_another(tmp_path: Path, more: bytes) -> None:
    """Also where the layer is no whole number of blocks, or ends with zeros."""
    data = _LAYER + more
    path = _image(tmp_path / "image", data)
    assert _problem(path) == ""
    for place in _places(path, _BEGIN, _BEGIN + len(data)):
        assert "does not have the digest" in _problem(path), place
    assert _problem(path) == ""


@pytest.mark.parametrize("more", [b"", b"x" * 700, bytes(5000)])
def test_a_sparse_file(tmp_path: Path, more: bytes) -> None:
    """What it is when spread out lies between the layer and the metadata."""
    with (tmp_path / "sparse").open("wb") as file:
        for place in (70_000, 900_000):
            os.pwrite(file.fileno(), os.urandom(5000), place)
        file.truncate(2_000_000)
    (tmp_path / "plain").write_bytes(os.urandom(3000))
    command = ["tar", "-C", str(tmp_path), "-S", "-b1", "-c", "sparse", "plain"]
    data = subprocess.run(command, check=True, capture_output=True).stdout + more
    assert len(data) < 100_000
    path = _image(tmp_path / "image", data)
    assert _problem(path) == ""
    for place in _places(path, _BEGIN, _BEGIN + len(data)):
        assert "does not have the digest" in _problem(path), place
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"x", layout.SUPER_OFFSET + 64)
    assert "where the layer in it ends" in _problem(path)


def test_what_is_no_image(tmp_path: Path) -> None:
    path = _image(tmp_path / "image", _LAYER)
    path.write_bytes(bytes(path.stat().st_size))
    assert _problem(path) == "it is no EROFS image"
    path.write_bytes(b"")
    assert _problem(path) == "it is no EROFS image"


def test_where_no_layer_is_known(tmp_path: Path) -> None:
    """Contents that are aligned to pages are no tar any more; others write images of their own."""
    assert _problem(_image(tmp_path / "pages", _LAYER, 4096)) == ""
    path = _image(tmp_path / "image", _LAYER)
    other = bytearray(path.read_bytes())
    other[layout.SUPER_OFFSET + 8] |= 1  # a checksum
    other[5000] ^= 1
    path.write_bytes(other)
    assert _problem(path) == ""


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO])
def test_want_of_memory_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = _image(tmp_path / "image", _LAYER)
    reading = Reading(path.stat().st_size, lambda done, total: None)

    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", fails)
    for look in (reading.layer, lambda path: reading.blob(path, "sha256:1")):
        if number == errno.EIO:
            assert os.strerror(number) in look(path)
        else:
            with pytest.raises(Unavailable, match=f"image.*{os.strerror(number)}"):
                look(path)
