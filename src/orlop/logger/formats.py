"""The entries of a log: Docker's JSON lines, and the format of Kubernetes' CRI.

An encoder is given many lines at once, and works on all of them with a few passes over the bytes: a
container may print hundreds of megabytes a second.
"""

from __future__ import annotations

import time
from binascii import b2a_base64
from typing import Protocol

from orlop.logger.options import CRI

# Those without a short escape of their own.
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r")


class Encoder(Protocol):
    """Makes entries. `lines` ends with a newline; a `part` is a piece of a line, without one."""

    def lines(self, stream: str, lines: bytes, stamp: bytes) -> bytes: ...

    def part(self, stream: str, part: bytes, stamp: bytes) -> bytes: ...


def encoder(name: str) -> Encoder:
    return CriLines() if name == CRI else JsonLines()


class JsonLines:
    """`{"log":"…\\n","stream":"stdout","time":"…"}`; a part's `log` does not end with a newline.

    What is no UTF-8 becomes U+FFFD, as with Docker; the bytes themselves are in `raw` then, in
    base64, so that no reader is disturbed and nothing is lost.
    """

    def lines(self, stream: str, lines: bytes, stamp: bytes) -> bytes:
        if not _is_utf8(lines):
            return b"".join(self.part(stream, line, stamp) for line in _split(lines))
        tail = b'","stream":"%b","time":"%b"}\n' % (stream.encode(), stamp)
        between = b"\\n" + tail + b'{"log":"'
        # The last newline has opened an entry that is not there.
        return b'{"log":"' + _escape(lines[:-1]).replace(b"\n", between) + b"\\n" + tail

    def part(self, stream: str, part: bytes, stamp: bytes) -> bytes:
        raw = b""
        text = part
        if not _is_utf8(part):
            raw = b',"raw":"%b"' % b2a_base64(part, newline=False)
            text = part.decode(errors="replace").encode()
        text = _escape(text).replace(b"\n", b"\\n")
        return b'{"log":"%b","stream":"%b","time":"%b"%b}\n' % (text, stream.encode(), stamp, raw)


class CriLines:
    """`TIME stdout F line`, with P for a part: bytes as they are."""

    def lines(self, stream: str, lines: bytes, stamp: bytes) -> bytes:
        head = b"%b %b F " % (stamp, stream.encode())
        return head + lines[:-1].replace(b"\n", b"\n" + head) + b"\n"

    def part(self, stream: str, part: bytes, stamp: bytes) -> bytes:
        return b"%b %b P %b\n" % (stamp, stream.encode(), part)


class Clock:
    """Tells the time as logs write it: UTC, with nanoseconds."""

    def __init__(self) -> None:
        self._second = -1
        self._head = ""

    def stamp(self) -> bytes:
        second, rest = divmod(time.time_ns(), 10**9)
        if second != self._second:
            self._second = second
            self._head = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._head}.{rest:09d}Z".encode()


def _escape(text: bytes) -> bytes:
    """The inside of a JSON string, but for newlines."""
    for plain, escaped in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\r", b"\\r"), (b"\t", b"\\t")):
        if plain in text:
            text = text.replace(plain, escaped)
    if len(text.translate(None, _CONTROLS)) != len(text):
        for code in _CONTROLS:
            text = text.replace(bytes((code,)), b"\\u%04x" % code)
    return text


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split(lines: bytes) -> list[bytes]:
    """Lines with their newlines; bytes.splitlines would split at others, too."""
    return [line + b"\n" for line in lines[:-1].split(b"\n")]
