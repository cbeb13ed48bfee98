"""Reading logs: by lines from the end, across files, through rotation while they are written."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from orlop.client import log_reader
from orlop.client.log_entries import Entry, is_within, nanoseconds, parser
from orlop.client.log_reader import LogReader
from orlop.logger.formats import encoder
from orlop.logger.rotation import RotatingFile
from orlop.logger.writer import LINE_MAX, Source

STAMP = b"2026-11-25T18:00:00.000000001Z"
FORMATS = ["json-file", "cri", "file"]


def write(path: Path, kind: str, text: bytes, max_size: int = 0) -> None:
    """Write a log as a writer does."""
    if kind == "file":
        path.write_bytes(text)
        return
    source, file = Source("stdout", encoder(kind)), RotatingFile(str(path), max_size, 1000)
    file.write(source.take(text, STAMP))
    file.write(source.end(STAMP))
    file.close()


@contextmanager
def reading(path: Path, kind: str) -> Iterator[LogReader]:
    with closing(LogReader(path, parser(kind), plain=kind == "file")) as reader:
        yield reader


def joined(batches: Iterable[list[Entry]]) -> bytes:
    return b"".join(entry.data for batch in batches for entry in batch)


def tail(path: Path, kind: str, lines: int) -> bytes:
    with reading(path, kind) as reader:
        found = joined([reader.from_end(lines)])
        assert joined(reader.available()) == b""
    return found


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("text", "lines", "wanted"),
    [
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\n\n", 1, b"\n"),
        (b"a\nb\n", 0, b""),
        (b"", 3, b""),
        (b"a\n" + b"x" * 5 * LINE_MAX + b"\nb\n", 2, b"x" * 5 * LINE_MAX + b"\nb\n"),
        (b"a\r\n\xff\r\n", 1, b"\xff\r\n"),
    ],
)
def test_tail(tmp_path: Path, kind: str, text: bytes, lines: int, wanted: bytes) -> None:
    write(tmp_path / "log", kind, text)
    assert tail(tmp_path / "log", kind, lines) == wanted


@pytest.mark.parametrize("kind", FORMATS)
def test_tail_across_blocks_and_files(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "CHUNK", 100)
    text = b"".join(b"line %d\n" % number for number in range(50))
    write(tmp_path / "log", kind, text, max_size=1000)
    assert (kind == "file") != (tmp_path / "log.1").exists()
    for count in (1, 3, 15, 49, 50, 51):
        wanted = b"".join(text.splitlines(keepends=True)[-count:])
        assert tail(tmp_path / "log", kind, count) == wanted


@pytest.mark.parametrize("kind", ["json-file", "cri"])
def test_everything_across_files(tmp_path: Path, kind: str) -> None:
    text = b"".join(b"line %d\n" % number for number in range(5000))
    write(tmp_path / "log", kind, text, max_size=10_000)
    with reading(tmp_path / "log", kind) as reader:
        reader.from_beginning()
        assert joined(reader.available()) == text


@pytest.mark.parametrize("kind", ["json-file", "cri"])
@pytest.mark.parametrize("max_file", [1000, 3])
def test_following_through_rotation_under_load(tmp_path: Path, kind: str, max_file: int) -> None:
    """A reader that keeps up sees every line once and in order; one that does not may lose the
    files that were removed, and nothing else."""
    path, count = tmp_path / "log", 60_000
    file, source = RotatingFile(str(path), 20_000, max_file), Source("stdout", encoder(kind))
    done = threading.Event()

    def produce() -> None:
        for number in range(0, count, 10):
            lines = b"".join(b"%d\n" % each for each in range(number, number + 10))
            file.write(source.take(lines, STAMP))
        done.set()

    with reading(path, kind) as reader:
        reader.from_beginning()
        thread = threading.Thread(target=produce)
        thread.start()
        found = b""
        while not done.is_set():
            found += joined(reader.available())
        thread.join()
        found += joined(reader.available())
    file.close()
    numbers = [int(each) for each in found.split()]
    if max_file == 1000:
        assert numbers == list(range(count))
    else:
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == count - 1


def test_a_snapshot_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "json-file", b"one\n")
    with reading(path, "json-file") as reader:
        reader.from_beginning()
        limit = reader.extent()
        write(path, "json-file", b"two\n")
        assert joined(reader.available(limit)) == b"one\n"


def test_a_writer_is_there_whatever_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = RotatingFile(str(path), 4, 4)
    for number in range(3):
        file.write(b"%d\n" % number)
    with reading(path, "cri") as reader:
        reader.from_beginning()
        file.write(b"3\n")
        assert reader.inode != path.stat().st_ino
        assert reader.is_written_to()
        path.rename(tmp_path / "log.1")  # as while the next one is begun
        assert reader.is_written_to()
        file.close()
        assert not reader.is_written_to()


def test_a_line_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "json-file", b"one\ntwo\n")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with reading(path, "json-file") as reader:
        assert joined([reader.from_end(5)]) == b"one\n"
        path.write_bytes(whole)
        assert joined(reader.available()) == b"two\n"


@pytest.mark.parametrize(("kind", "torn"), [("json-file", b'{"log":"half'), ("cri", b"2026-11-2")])
def test_damage_is_left_out(tmp_path: Path, kind: str, torn: bytes) -> None:
    path = tmp_path / "log"
    write(path, kind, b"one\n")
    with path.open("ab") as file:
        file.write(torn)
    write(path, kind, b"two\n")
    with reading(path, kind) as reader:
        reader.from_beginning()
        assert joined(reader.available()) == b"one\ntwo\n"


def test_docker_s_own() -> None:
    """Its times have as many digits as they need, and there may be attributes."""
    line = b'{"log":"hi\\n","stream":"stderr","attrs":{"a":"b"},"time":"2026-11-25T18:00:00.5Z"}\n'
    assert list(parser("json-file")(line)) == [Entry("stderr", b"hi\n", "2026-11-25T18:00:00.5Z")]
    (entry,) = parser("cri")(b"2026-11-25T18:00:00Z stdout F \n")
    assert entry.data == b"\n"


def test_times() -> None:
    assert nanoseconds("2026-11-25T18:00:00.5Z") == 1795629600_500000000
    assert nanoseconds("2026-11-25T20:00:00.000000001+02:00") == 1795629600_000000001
    assert nanoseconds("2026-11-25T18:00:00Z") == 1795629600_000000000


@pytest.mark.parametrize("time", ["", "soon", "2026-11-25T18:00:00.5Z\x1b", "0001-01-01T00:00:00"])
def test_damaged_times_are_in_no_span(time: str) -> None:
    assert not is_within(time, 0, 1 << 63)
    assert is_within("2026-11-25T18:00:00.5Z", 0, 1 << 63)
