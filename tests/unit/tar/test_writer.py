"""What the writer writes, our reader and Python's read; and the same each time."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.errors import InvalidArgument
from orlop.tar.reader import DIRECTORY, REGULAR, SYMLINK, Entry, TarReader
from orlop.tar.writer import TarWriter


def written(*entries: tuple[Entry, bytes]) -> bytes:
    out = bytearray()
    writer = TarWriter(out.extend)
    for entry, data in entries:
        writer.entry(entry)
        if entry.type == REGULAR:
            writer.content([data], len(data))
    writer.close()
    return bytes(out)


def read(archive: bytes) -> list[tuple[Entry, bytes]]:
    pieces = iter([archive, b""])
    reader = TarReader(lambda: next(pieces))
    return [(entry, b"".join(reader.content())) for entry in reader]


names = st.binary(min_size=1, max_size=300).filter(
    lambda name: b"\0" not in name and not name.startswith(b"/") and not name.endswith(b"/")
)
big = st.integers(0, 2**32 - 2)
attribute_names = st.text(
    st.characters(exclude_characters="=\0\n", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@given(
    name=names,
    kind=st.sampled_from([REGULAR, DIRECTORY, SYMLINK]),
    mode=st.integers(0, 0o7777),
    uid=big,
    gid=big,
    mtime=st.integers(-(2**62), 2**62),
    link=names,
    xattrs=st.dictionaries(attribute_names, st.binary(max_size=100), max_size=3),
    data=st.binary(max_size=1500),
)
def test_round_trip(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    link: bytes,
    xattrs: dict[str, bytes],
    data: bytes,
) -> None:
    content = data if kind == REGULAR else b""
    target = link if kind == SYMLINK else b""
    entry = Entry(name, kind, mode, uid, gid, len(content), mtime, target, xattrs=xattrs)
    archive = written((entry, content))
    assert len(archive) % 512 == 0
    ((found, found_data),) = read(archive)
    found.name = found.name.rstrip(b"/") if kind == DIRECTORY else found.name
    assert (found, found_data) == (entry, content)
    assert written((entry, content)) == archive


def test_python_reads_it() -> None:
    deep = b"folder/" * 30 + b"name"
    entries = [
        (Entry(deep, REGULAR, 0o644, 3_000_000, 5, 3, 1_500_000_000_250_000_000, b""), b"abc"),
        (Entry("früh".encode(), DIRECTORY, 0o1777, 0, 0, 0, -1_000_000_000, b""), b""),
        (Entry(b"link", SYMLINK, 0o777, 0, 0, 0, 0, b"t" * 200), b""),
    ]
    with tarfile.open(fileobj=io.BytesIO(written(*entries))) as archive:
        file, folder, link = archive.getmembers()
        extracted = archive.extractfile(file)
        assert extracted is not None
        assert extracted.read() == b"abc"
    assert (file.name, file.uid, file.mtime) == (deep.decode(), 3_000_000, 1_500_000_000.25)
    assert (folder.name, folder.isdir(), folder.mode, folder.mtime) == ("früh", True, 0o1777, -1)
    assert link.linkname == "t" * 200


def test_short_names_take_no_extended_header() -> None:
    archive = written((Entry(b"a/" * 60 + b"b", REGULAR, 0o644, 0, 0, 0, 10**9, b""), b""))
    assert len(archive) == 3 * 512


def test_a_size_beyond_eight_gibibytes() -> None:
    out = bytearray()
    TarWriter(out.extend).entry(Entry(b"big", REGULAR, 0o644, 0, 0, 9 << 30, 0, b""))
    assert tarfile.TarInfo.frombuf(bytes(out[1024:1536]), "utf-8", "strict").size == 0
    pieces = iter([bytes(out), b""])
    assert next(iter(TarReader(lambda: next(pieces)))).size == 9 << 30


def test_an_attribute_that_would_be_read_as_another() -> None:
    entry = Entry(b"file", REGULAR, 0o644, 0, 0, 0, 0, b"", xattrs={"user.a=b": b"v"})
    with pytest.raises(InvalidArgument, match=r'attribute "user\.a=b" of "file" has "="'):
        written((entry, b""))


def test_attributes_that_fit_into_no_header() -> None:
    xattrs = {f"user.{number}": bytes(65_000) for number in range(20)}
    entry = Entry(b"file", REGULAR, 0o644, 0, 0, 0, 0, b"", xattrs=xattrs)
    with pytest.raises(InvalidArgument, match='attributes of "file" take'):
        written((entry, b""))
