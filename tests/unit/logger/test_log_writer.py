"""What a log writer makes of bytes: entries, pieces of lines, files."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import resource
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.errors import InvalidArgument
from orlop.logger import options
from orlop.logger.formats import CriLines, JsonLines, encoder
from orlop.logger.options import Options
from orlop.logger.rotation import PatientFile, RotatingFile
from orlop.logger.writer import LINE_MAX, Source

STAMP = b"2026-11-25T18:00:00.000000001Z"

# What is hard: newlines, quotes, controls, half characters, and long lines.
_WORDS = st.sampled_from(
    [b"\n", b"\r\n", b'"', b"\\", b"\\n", b"\x00", b"\x1b[1m", b"\t", b"\xff", b"\xc3", b"\xa9",
     "жълта™".encode(), b"plain", b"x" * (LINE_MAX - 1), "é".encode() * LINE_MAX]
)  # fmt: skip
_CHUNKS = st.lists(st.lists(_WORDS, max_size=6).map(b"".join), max_size=6)


def written(kind: str, chunks: list[bytes]) -> bytes:
    source = Source("stdout", encoder(kind))
    return b"".join(source.take(chunk, STAMP) for chunk in chunks) + source.end(STAMP)


def restored_json(log: bytes) -> bytes:
    found = b""
    for line in log.splitlines():
        entry = json.loads(line)
        assert entry["stream"] == "stdout"
        assert entry["time"] == STAMP.decode()
        text = entry["log"].encode()
        found += base64.b64decode(entry["raw"]) if "raw" in entry else text
    return found


def restored_cri(log: bytes) -> bytes:
    found = b""
    for line in log.split(b"\n")[:-1]:
        stamp, stream, tag, text = line.split(b" ", 3)
        assert (stamp, stream) == (STAMP, b"stdout")
        found += text + (b"\n" if tag == b"F" else b"")
    return found


@settings(deadline=None)
@given(_CHUNKS)
def test_nothing_is_lost(chunks: list[bytes]) -> None:
    assert restored_json(written("json-file", chunks)) == b"".join(chunks)
    assert restored_cri(written("cri", chunks)) == b"".join(chunks)


@settings(deadline=None)
@given(_CHUNKS)
def test_no_entry_is_longer_than_a_line_may_be(chunks: list[bytes]) -> None:
    for line in written("cri", chunks).split(b"\n"):
        assert len(line) <= LINE_MAX + len(b" stdout F ") + len(STAMP)


def test_json_is_docker_s() -> None:
    log = written("json-file", [b'say "hi"\r\n', b"\x1b[1mbold\xff\n"])
    first, second = log.splitlines()
    assert first == (
        b'{"log":"say \\"hi\\"\\r\\n","stream":"stdout","time":"2026-11-25T18:00:00.000000001Z"}'
    )
    assert json.loads(second)["log"] == "\x1b[1mbold\ufffd\n"


def test_pieces_do_not_cut_characters() -> None:
    log = written("json-file", [b"x" + "é".encode() * LINE_MAX + b"\n"])
    assert len(log.splitlines()) == 3
    assert b"raw" not in log


def test_a_line_of_the_greatest_length_is_one_entry() -> None:
    assert len(written("cri", [b"x" * LINE_MAX, b"\n"]).splitlines()) == 1
    assert len(written("cri", [b"x" * (LINE_MAX + 1), b"\n"]).splitlines()) == 2


def test_encoders() -> None:
    assert isinstance(encoder("cri"), CriLines)
    assert isinstance(encoder("json-file"), JsonLines)


def files(folder: Path) -> list[bytes]:
    """The files of the log `log`, oldest first."""
    names = sorted(folder.glob("log*"), key=lambda path: -int(path.suffix[1:] or 0))
    return [path.read_bytes() for path in names]


def test_rotation(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), 10, 3)
    file.write(b"1234\n")
    file.write(b"567\n8\n9\n")
    assert files(tmp_path) == [b"1234\n567\n", b"8\n9\n"]
    file.write(b"this is a long one\nx\n")
    assert files(tmp_path) == [b"8\n9\n", b"this is a long one\n", b"x\n"][-3:]
    file.write(b"yyyyyyyyyyy\n")
    assert files(tmp_path) == [b"this is a long one\n", b"x\n", b"yyyyyyyyyyy\n"]
    file.close()


def test_one_file_only(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), 4, 1)
    file.write(b"1\n2\n3\n")
    assert files(tmp_path) == [b"3\n"]
    file.close()


def test_no_limit(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), 0, 1)
    file.write(b"1\n" * 1000)
    assert files(tmp_path) == [b"1\n" * 1000]
    file.close()


def test_a_torn_entry_is_ended(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"whole\nto")
    file = RotatingFile(str(tmp_path / "log"), 0, 1)
    file.write(b"next\n")
    assert files(tmp_path) == [b"whole\nto\nnext\n"]
    file.close()


def test_others_may_move_and_remove_the_file(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), 0, 3)
    file.write(b"1\n")
    (tmp_path / "log").rename(tmp_path / "elsewhere")
    file.write(b"2\n")
    (tmp_path / "log").unlink()
    file.write(b"3\n")
    assert (tmp_path / "elsewhere").read_bytes() == b"1\n"
    assert files(tmp_path) == [b"3\n"]
    file.close()


def test_the_lock_tells_that_it_is_written_to(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), 4, 3)
    file.write(b"1\n2\n3\n")
    with (tmp_path / "log").open() as reader:
        with pytest.raises(BlockingIOError):
            fcntl.flock(reader, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.close()
        fcntl.flock(reader, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.root
def test_a_full_disk() -> None:
    """What does not fit is counted; when there is room again, the log says so and goes on."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", name], check=True)
        try:
            filler = Path(name, "filler")
            filler.write_bytes(b"x" * 32768)
            file = RotatingFile(str(Path(name, "log")), 0, 1)
            log = PatientFile(file, str.encode)
            for _ in range(10):
                log.write(b"y" * 9999 + b"\n")
            filler.unlink()
            log.write(b"z\n")
            file.close()
            lines = Path(name, "log").read_bytes().split(b"\n")
        finally:
            subprocess.run(["umount", name], check=True)
    assert set(lines[:-3]) == {b"y" * 9999}
    kept = len(lines) - 3
    lost = (10 - kept) * 10_000
    assert lines[-3:] == [
        b"orlop-logger: %d bytes of log are lost: no space left on device" % lost, b"z", b""
    ]  # fmt: skip


def test_options_survive_their_uri() -> None:
    wanted = Options("/a b/c&d=é", "cri", 1 << 20, 4)
    assert options.of_uri(wanted.uri) == wanted
    assert options.of_uri("binary:///usr/bin/other?path=/x") is None
    assert options.of_uri("file:///x") is None
    assert options.of_uri("binary:///usr/bin/orlop-logger?path=/x") == Options("/x")


@pytest.mark.parametrize(
    ("text", "value"),
    [("10m", 10 << 20), ("1k", 1024), ("2g", 2 << 30), ("512", 512), ("3MB", 3 << 20),
     ("1KiB", 1024), ("0", 0), ("-1", 0)],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    assert options.size(text) == value


@pytest.mark.parametrize(
    "bad",
    [
        {"path": "relative"},
        {},
        {"path": "/x", "format": "xml"},
        {"path": "/x", "max-size": "-5"},
        {"path": "/x", "max-size": "m"},
        {"path": "/x", "max-file": "0"},
        {"path": "/x", "compress": "true"},
    ],
)
def test_bad_options(bad: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        options.parse(bad)


def test_the_program_without_a_shim() -> None:
    done = subprocess.run([options.PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: orlop-logger path FILE" in done.stderr


@pytest.mark.parametrize("terminate", [False, True])
def test_the_program(tmp_path: Path, terminate: bool) -> None:
    """It ends with its input; on SIGTERM, once the pipes are empty."""
    ends = {name: os.pipe() for name in ("stdout", "stderr", "ready")}
    log = tmp_path / "log"
    script = (
        f"exec {options.PROGRAM} path {log} format cri "
        f"3<&{ends['stdout'][0]} 4<&{ends['stderr'][0]} 5>&{ends['ready'][1]}"
        + "".join(f" {fd}>&-" for pair in ends.values() for fd in pair)
    )
    process = subprocess.Popen(
        ["bash", "-c", script], pass_fds=[fd for pair in ends.values() for fd in pair]
    )
    os.close(ends["ready"][1])
    assert os.read(ends["ready"][0], 10) == b""
    os.write(ends["stdout"][1], b"one\n" * 10_000 + b"rest")
    if terminate:
        process.terminate()
    else:
        os.close(ends["stdout"][1])
        os.close(ends["stderr"][1])
    assert process.wait(10) == 0
    lines = log.read_bytes().splitlines()
    assert len(lines) == 10_001
    assert lines[-1].endswith(b" stdout P rest")
    for fd in (ends["stdout"][0], ends["stderr"][0], ends["ready"][0]):
        os.close(fd)
    if terminate:
        os.close(ends["stdout"][1])
        os.close(ends["stderr"][1])


def test_a_new_file_that_cannot_be_written_to_costs_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = RotatingFile(str(path), 0, 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(3):
        torn = tmp_path / f"torn{number}"
        torn.write_bytes(b"torn entry")
        torn.rename(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                file.write(b"entry\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    file.write(b"entry\n")
    file.close()
