"""The whole terminal for a while: keys as they are typed, and a picture drawn anew at will."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orlop.cli.terminal import printable, window_size
from orlop.errors import InvalidArgument

_ENTER = "\x1b[?1049h\x1b[?25l"  # the other screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_NEXT_LINE = f"{_REST_OF_LINE}\n"
BOLD, REVERSE, PLAIN = "\x1b[1m", "\x1b[7m", "\x1b[m"
END = "end of all"
# Terminals begin the codes of keys by "ESC [" or "ESC O", as it comes.
_SEQUENCES = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|[^\x1b]")
_KEYS = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "5~": "page up",
    "6~": "page down",
    **dict.fromkeys(("H", "1~", "7~"), "home"),
    **dict.fromkeys(("F", "4~", "8~"), "end"),
}
_WORKING_SIGNALS = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)


class Screen:
    """What `whole_screen` gives: draw on it, and wait for keys."""

    def __init__(self, keys: int, output: int, wake: int) -> None:
        self._keys = keys
        self._output = output
        self._wake = wake

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows; some terminals say 0 for what they do not know."""
        columns, rows = window_size(self._output)
        return columns or 80, rows or 24

    def draw(self, lines: Sequence[str], styles: Sequence[str]) -> None:
        """One line a row, cut to what there is; `styles` begin them. Nothing flickers: what was
        there is written over.
        """
        columns, rows = self.size
        shown = [
            f"{style}{printable(line)[:columns]}{PLAIN}"
            for line, style in zip(lines[:rows], styles, strict=False)
        ]
        picture = f"{_HOME}{_NEXT_LINE.join(shown)}{_REST_OF_SCREEN}"
        data = memoryview(picture.encode())
        while data:
            data = data[os.write(self._output, data) :]

    def keys(self, seconds: float) -> list[str]:
        """What is typed within so many seconds, as soon as something is; nothing also when the
        window's size changes, and `END` for a terminal that has gone, or a signal to end.
        """
        ready, _, _ = select.select([self._keys, self._wake], [], [], max(0.0, seconds))
        if self._wake in ready and set(os.read(self._wake, 64)) - {signal.SIGWINCH}:
            return [END]
        if self._keys not in ready:
            return []
        try:
            typed = os.read(self._keys, 64)
        except OSError:
            typed = b""
        return list(named(typed.decode(errors="replace"))) if typed else [END]


def named(typed: str) -> Iterator[str]:
    """The names of the keys by which this was typed: a letter is its own."""
    for sequence in _SEQUENCES.findall(typed):
        if len(sequence) == 1:
            yield sequence
        elif name := _KEYS.get(sequence[2:]):
            yield name


@contextmanager
def whole_screen() -> Iterator[Screen]:
    """The terminal until the block ends, however it does; then it is as it was.

    Raises InvalidArgument when there is none.
    """
    keys, output = sys.stdin.fileno(), sys.stdout.fileno()
    if not (os.isatty(keys) and os.isatty(output)):
        raise InvalidArgument(
            "there is no terminal to draw on; `orlop stats --no-stream` needs none"
        )
    before = termios.tcgetattr(keys)
    with _signals() as wake:
        try:
            tty.setcbreak(keys)
            _no_suspension(keys)
            os.write(output, _ENTER.encode())
            yield Screen(keys, output, wake)
        finally:
            try:
                os.write(output, (PLAIN + _LEAVE).encode())
                termios.tcsetattr(keys, termios.TCSADRAIN, before)
            except OSError:
                pass  # a terminal that went away needs nothing


def _no_suspension(fd: int) -> None:
    """Ctrl-Z would leave a shell on the wrong screen."""
    mode = termios.tcgetattr(fd)
    mode[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(fd, termios.TCSANOW, mode)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that says which signals came: those that would leave the terminal as it is."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    handlers = {each: signal.signal(each, lambda *_: None) for each in _WORKING_SIGNALS}
    previous = signal.set_wakeup_fd(write)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)
