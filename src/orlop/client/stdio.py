"""A process's standard streams: what a task is told of them, and what a client has of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Streams(NamedTuple):
    """What a task or exec request says of stdio: URIs, "" for none."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Channel(Protocol):
    """One client's ends of a process's streams.

    `outputs` are descriptors to poll for output, and `input` is one to poll for room. After the
    process has ended, `linger` is how many seconds the end of its output may be late. `shared` is
    whether the process goes on undisturbed without this client.
    """

    linger: float
    shared: bool

    @property
    def takes_input(self) -> bool: ...
    @property
    def outputs(self) -> Sequence[int]: ...
    @property
    def input(self) -> int: ...

    def receive(self, fd: int) -> tuple[int, bytes]:
        """Output of one of `outputs`: 1 or 2 and its bytes, no bytes at the end.

        Raises BlockingIOError when there is none.
        """

    def send(self, data: bytes) -> int:
        """Type some of `data`, or end the input if there is none; how much was taken.

        Raises BlockingIOError when there is no room, OSError when nobody takes it any more.
        """
