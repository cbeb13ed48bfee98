"""Sparse files, as GNU tar writes them in each of its formats."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import InvalidArgument, ResourceExhausted
from orlop.tar import sparse, zeros
from orlop.tar.reader import Entry, TarReader
from tests.layer_fixture import HOSTILE, Member, layer, member, old_sparse
from tests.layer_fixture import sparse as in_parts

FORMATS = {
    "old GNU": ["--format=gnu"],
    "PAX 0.0": ["--format=posix", "--sparse-version=0.0"],
    "PAX 0.1": ["--format=posix", "--sparse-version=0.1"],
    "PAX 1.0": ["--format=posix", "--sparse-version=1.0"],
}


def read(archive: bytes, step: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    pieces = iter([archive[at : at + step] for at in range(0, len(archive), step)] + [b""])
    reader = TarReader(lambda: next(pieces), max_holes=1 << 30)
    return [(entry, b"".join(reader.content())) for entry in reader]


def scattered(path: Path, parts: int, step: int, size: int) -> bytes:
    """A file with so many bits of data, and its content."""
    with path.open("wb") as file:
        for number in range(parts):
            os.pwrite(file.fileno(), os.urandom(3000), number * step + 7)
        file.truncate(size)
    return path.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("step", [512, 7777, 1 << 20])
def test_as_gnu_tar_writes_them(tmp_path: Path, format: str, step: int) -> None:
    wanted = {
        "few": scattered(tmp_path / "few", 3, 1 << 16, 3 << 16),
        "many": scattered(tmp_path / "many", 60, 1 << 15, (60 << 15) + 12345),
        "full": scattered(tmp_path / "full", 1, 0, 3007),
        "nothing": scattered(tmp_path / "nothing", 0, 0, (1 << 20) + 1),
        "n" * 120: scattered(tmp_path / ("n" * 120), 2, 1 << 16, 1 << 18),
        "plain": os.urandom(5000),
    }
    (tmp_path / "plain").write_bytes(wanted["plain"])
    done = subprocess.run(
        ["tar", "-C", tmp_path, "-S", *FORMATS[format], "-c", *wanted],
        check=True,
        capture_output=True,
    )
    found = read(done.stdout, step)
    assert [entry.name.decode() for entry, _ in found] == list(wanted)
    for entry, content in found:
        assert content == wanted[entry.name.decode()]
        assert entry.size == len(content)
    assert [entry.segments is not None for entry, _ in found] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_what_nobody_reads_is_passed_over() -> None:
    archive = layer(in_parts("4,4,12,4", 20), member("next", b"x"))
    pieces = iter([archive, b""])
    assert [entry.name for entry in TarReader(lambda: next(pieces))] == [b"real", b"next"]
    pieces = iter([archive, b""])
    reader = TarReader(lambda: next(pieces))
    assert next(iter(reader)).size == 20
    assert next(bytes(piece) for piece in reader.content()) == bytes(4)
    assert next(iter(reader)).name == b"next"
    assert b"".join(reader.content()) == b"x"


def test_parts_and_the_zeros_between() -> None:
    ((entry, content),) = read(layer(in_parts("4,4,12,4,20,0", 20)))
    assert (entry.name, entry.segments) == (b"real", [(4, 4), (12, 4)])
    assert content == bytes(4) + b"1234" + bytes(4) + b"5678" + bytes(4)
    more = (b"00000000014\0" + b"00000000004\0").ljust(512, b"\0")
    ((_, content),) = read(old_sparse([(4, 1), (6, 1), (8, 1), (10, 1)], 20, more))
    assert content == b"....1.2.3.4.5678....".replace(b".", b"\0")


@pytest.mark.parametrize("what", [each for each in HOSTILE if "sparse" in each])
def test_hostile_maps(what: str) -> None:
    kind = ResourceExhausted if "petabytes" in what else InvalidArgument
    with pytest.raises(kind, match=r"layer (has|entry|breaks off)"):
        read(HOSTILE[what]())


def test_holes_of_all_files_count_together() -> None:
    files = [in_parts("0,8", 600 << 20, **{"GNU.sparse.name": name}) for name in "ab"]
    read_one = read(layer(files[0]))
    assert len(read_one[0][1]) == 600 << 20
    with pytest.raises(ResourceExhausted, match="more than 1073741824 bytes of holes"):
        read(layer(*files))


def in_bytes(parts: int) -> Member:
    """A file in PAX 1.0 with so many parts of a byte each."""
    told = b"%d\n" % parts + b"".join(b"%d\n1\n" % (2 * at) for at in range(parts))
    told += bytes(-len(told) % 512)
    records = {"major": "1", "minor": "0", "realsize": str(2 * parts)}
    pax = {f"GNU.sparse.{key}": value for key, value in records.items()}
    return member("a", told + b"x" * parts, pax_headers=pax)


def entries_of(archive: bytes) -> Iterator[Entry]:
    pieces = iter([archive, b""])
    return iter(TarReader(lambda: next(pieces)))


def test_parts_of_all_files_count_together() -> None:
    """Who makes an image keeps them; those without a byte are nothing."""
    many = [in_bytes(1 << 16)] * 16
    assert sum(len(each.segments or ()) for each in entries_of(layer(*many))) == 1 << 20
    with pytest.raises(ResourceExhausted, match="of more than 1048576 parts together"):
        list(entries_of(layer(*many, in_bytes(1))))
    empty = "0,8" + ",8,0" * 60_000
    for entry in entries_of(layer(*[in_parts(empty, 20)] * 20)):
        assert entry.segments == [(0, 8)]


def test_random_maps_are_taken_or_refused() -> None:
    source = random.Random(7)
    taken = 0
    for _ in range(3000):
        numbers = [source.choice([0, 0, 2, 4, 4, 8, -1, 1 << 70]) for _ in range(4)]
        archive = layer(in_parts(",".join(map(str, numbers)), source.choice([8, 20])))
        try:
            ((entry, content),) = read(archive)
        except InvalidArgument:
            continue
        taken += 1
        assert len(content) == entry.size
        assert content.replace(b"\0", b"") == b"12345678"
    assert taken > 20


def test_holes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    scattered(path, 1, 0, 1 << 20)
    with path.open("rb") as file:
        fd, size = file.fileno(), 1 << 20
        assert zeros.data_after(fd, 0, size) == 0
        hole = zeros.hole_after(fd, 0, size)
        assert 3007 <= hole < size
        assert zeros.data_after(fd, hole, size) == size
        assert zeros.data_after(fd, 5 << 20, 6 << 20) == 6 << 20
    assert b"".join(zeros.of(600_000)) == bytes(600_000)
    assert not zeros.are_hole(bytes(4095))
    assert zeros.are_hole(bytes(4096))
    assert not zeros.are_hole(bytes(5000) + b"x")
    assert sparse.PREFIX == b"GNU.sparse."
