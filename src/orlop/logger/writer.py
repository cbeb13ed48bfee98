"""The loop of a log writer: read two pipes, write entries, until both have ended."""

from __future__ import annotations

import fcntl
import os
import select
import signal

from orlop.logger.formats import Clock, Encoder, encoder
from orlop.logger.options import Options
from orlop.logger.rotation import PatientFile, RotatingFile

STDOUT, STDERR, READY = 3, 4, 5
"""The descriptors that a logger is given."""
LINE_MAX = 16 * 1024
"""Bytes of a line that go into one entry, as with Docker and containerd's CRI."""
_CHUNK = 64 * 1024
_PIPE_SIZE = 1 << 20  # fewer turns for a container that prints fast
_CONTINUATION = range(0x80, 0xC0)


class Source:
    """One stream: keeps the piece of a line whose end has not come."""

    def __init__(self, name: str, encoder: Encoder) -> None:
        self._name = name
        self._encoder = encoder
        self._rest = b""

    def take(self, data: bytes, stamp: bytes) -> bytes:
        """The entries of what is complete, now that `data` has come."""
        if self._rest:
            data = self._rest + data
        end = data.rfind(b"\n") + 1
        entries = []
        begin = start = 0  # lines from `begin` on are to be written, and checked up to `start`
        while len(data) - start > LINE_MAX:
            newline = data.rfind(b"\n", start, start + LINE_MAX + 1)
            if newline >= 0:
                start = newline + 1
                continue
            if start > begin:
                entries.append(self._encoder.lines(self._name, data[begin:start], stamp))
            begin, start = start, _cut(data, start + LINE_MAX)
            entries.append(self._encoder.part(self._name, data[begin:start], stamp))
            begin = start
        if end > begin:
            entries.append(self._encoder.lines(self._name, data[begin:end], stamp))
        self._rest = data[max(begin, end) :]
        return entries[0] if len(entries) == 1 else b"".join(entries)

    def end(self, stamp: bytes) -> bytes:
        """The entry of an unfinished last line."""
        rest, self._rest = self._rest, b""
        return self._encoder.part(self._name, rest, stamp) if rest else b""


def _cut(data: bytes, index: int) -> int:
    """The index itself, or up to three less, so that no character is cut in two."""
    for back in range(4):
        if data[index - back] not in _CONTINUATION:
            return index - back
    return index


def run(options: Options, file: RotatingFile) -> None:
    """Write a log until both pipes have ended.

    SIGTERM, which containerd sends as soon as the container has ended, ends it when the pipes are
    empty: nothing is left behind.
    """
    encode, clock = encoder(options.format), Clock()
    log = PatientFile(file, lambda text: encode.lines("stderr", text.encode(), clock.stamp()))
    sources = {STDOUT: Source("stdout", encode), STDERR: Source("stderr", encode)}
    poll = select.poll()
    for fd in sources:
        _enlarge(fd)
        poll.register(fd, select.POLLIN)
    told = _on_termination()
    poll.register(told, select.POLLIN)
    os.close(READY)
    leaving = False
    while sources:
        ready = poll.poll(0 if leaving else None)
        if not ready:
            break
        for fd, _ in ready:
            if fd == told:
                os.read(told, _CHUNK)
                leaving = True
                continue
            data = os.read(fd, _CHUNK)
            if data:
                entries = sources[fd].take(data, clock.stamp())
            else:
                poll.unregister(fd)
                entries = sources.pop(fd).end(clock.stamp())
            if entries:
                log.write(entries)
    for source in sources.values():
        if entries := source.end(clock.stamp()):
            log.write(entries)
    file.close()


def _enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass  # not allowed, or no pipe


def _on_termination() -> int:
    """A descriptor that SIGTERM makes readable."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return reader
