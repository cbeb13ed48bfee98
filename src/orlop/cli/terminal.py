"""Our own terminal: raw mode while a container has it, and its size."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orlop.errors import InvalidArgument


def printable(text: str) -> str:
    """What others have given as a name or a label, on one line: it does not speak to a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Pass every key through, Ctrl-C included, until the block ends."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        with suppress(termios.error):  # it has been hung up
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A Ctrl-C meanwhile is raised at the end: half a change would leave the terminal broken."""
    import signal

    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def window_size(fd: int) -> tuple[int, int]:
    """Columns and rows of the terminal at `fd`; 80 by 24 when it does not say."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return size.columns, size.lines


def ask_secret(prompt: str) -> str:
    """What the user types, unseen. Raises InvalidArgument when there is no terminal to ask at."""
    import getpass

    if not sys.stdin.isatty():
        raise InvalidArgument("no password given, and no terminal to ask for it")
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise InvalidArgument("no password given") from None


def agreed(question: str) -> bool:
    """Whether the user says yes; anything else is a no."""
    return ask(f"{question} [y/N] ").lower() in ("y", "yes")


def ask(prompt: str) -> str:
    """A line that the user types, "" when there is none. The prompt goes to stderr."""
    print(prompt, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
