"""What a daemon's events say while a test does something: none missed, none of before."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.patience import patient

if TYPE_CHECKING:
    from tests.containerd_fixture import Containerd
    from tests.daemon_fixture import Orlopd

_HERE = "/namespaces/update"
"""The topic of the event that proves the subscriber is there; it is not among what is heard."""


class Heard:
    """The lines that the follower wrote so far, each with one event."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[str]:
        return [line for line in self._path.read_text().splitlines() if _HERE not in line]

    def topics(self, under: str = "/") -> list[str]:
        """Their topics in order, those that start with `under`."""
        words = (word.strip('",') for line in self.lines() for word in line.split())
        return [word for word in words if word.startswith(under)]


@contextmanager
def hearing(
    daemon: Orlopd | Containerd, *filters: str, command: Sequence[str] = ()
) -> Iterator[Heard]:
    """Follows the events in the daemon's namespace by `ctr`, or by `command`.

    The block begins when the follower is subscribed. An event may come after the call that made
    it has returned: wait for the last that you need.
    """
    follow = [*(command or daemon.ctr_command("events")), *filters]
    follow += [f'topic=="{_HERE}"'] if filters else []
    handle, name = tempfile.mkstemp(prefix="orlop-events-")
    heard = Path(name)
    try:
        with subprocess.Popen(follow, stdout=handle) as process:
            try:
                _until_there(daemon, heard)
                yield Heard(heard)
            finally:
                process.terminate()
                process.wait(patient(10))
    finally:
        os.close(handle)
        heard.unlink()


def _until_there(daemon: Orlopd | Containerd, heard: Path) -> None:
    def is_there() -> bool:
        daemon.ctr("namespaces", "label", daemon.namespace, f"moment={time.monotonic_ns()}")
        return _HERE in heard.read_text()

    daemon.wait_for(is_there)
