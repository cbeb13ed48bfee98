"""What the lines of a log file say, by format: who printed which bytes, when."""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from orlop import typed
from orlop.logger.options import CRI, JSON

_CRI = re.compile(rb"(\S+) (stdout|stderr) ([FP])\S* ?(.*)", re.DOTALL)
_FRACTION = re.compile(r"\.(\d+)")


class Entry(NamedTuple):
    """Bytes that a container printed to `stream`; a line, or a piece of one without a newline.

    `time` is as the log has it, "" where it has none.
    """

    stream: str
    data: bytes
    time: str = ""


Parser = Callable[[bytes], Iterable[Entry]]
"""From whole lines of a log file to entries. Lines that are damaged are left out."""


def parser(format: str) -> Parser:
    """Of a driver's format; a plain file has no entries, and no newline is needed to end one."""
    return {JSON: _json_entries, CRI: _cri_entries}.get(format, _raw_entries)


def nanoseconds(time: str) -> int:
    """A time of a log, RFC 3339, as Unix time in nanoseconds; raises ValueError, OverflowError."""
    fraction = _FRACTION.search(time)
    whole = datetime.fromisoformat(_FRACTION.sub("", time))
    digits = fraction[1] if fraction else ""
    return int(whole.timestamp()) * 10**9 + int(digits[:9].ljust(9, "0"))


def is_within(time: str, since: int, until: int) -> bool:
    """Whether a time of a log is in a span of nanoseconds; a damaged one is in none."""
    try:
        return since <= nanoseconds(time) < until
    except (ValueError, OverflowError):
        return False


class _Line(msgspec.Struct):
    """A line of a JSON log, Docker's; `raw` is orlop's own (base64), for what is not UTF-8."""

    log: str = ""
    stream: str = "stdout"
    time: str = ""
    raw: str = ""


_decoder = typed.decoder(_Line)


def _json_entries(lines: bytes) -> Iterable[Entry]:
    try:
        found = _decoder.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = list(_sound(lines))
    return [
        Entry(line.stream, a2b_base64(line.raw) if line.raw else line.log.encode(), line.time)
        for line in found
    ]


def _sound(lines: bytes) -> Iterator[_Line]:
    """One by one: a writer that was killed may have left half a line."""
    for line in lines.split(b"\n"):
        try:
            yield _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue


def _cri_entries(lines: bytes) -> Iterator[Entry]:
    for line in lines.split(b"\n"):
        match = _CRI.fullmatch(line)
        if match is not None:
            time, stream, tag, text = match.groups()
            data = text + b"\n" if tag == b"F" else text
            yield Entry(stream.decode(), data, time.decode(errors="replace"))


def _raw_entries(lines: bytes) -> Iterable[Entry]:
    return [Entry("stdout", lines)]
