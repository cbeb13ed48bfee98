"""The daemon's side of a watch: a worker of its own tells what changes in a network namespace."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import TracebackType

from orlop import errors, typed
from orlop.fork.worker import Spawner, Worker
from orlop.network import messages
from orlop.network.model import Change

_JOB = "orlop.network.monitor:serve"
_decode = typed.decoder(Change).decode


class Watch:
    """The changes in the namespace `ns`, an iterator: first what is there, then what comes.

    A context manager, after which the worker is gone. `about` is the namespace in words. The end
    is always an error: NotFound when the namespace is not there or goes, Unavailable after `close`.
    """

    def __init__(self, forks: Spawner, ns: str, about: str) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            args = {"ns": ns, "about": about}
            self._worker = Worker(forks, _JOB, args, [theirs.fileno()], name="orlop-netwatch")

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.__exit__(kind, error, trace)
        self._channel.close()

    def close(self) -> None:
        """End it, from any thread."""
        self._worker.cancel()

    def __iter__(self) -> Iterator[Change]:
        while True:
            try:
                data = messages.receive(self._channel)
            except ConnectionResetError:
                data = None
            if data is None:
                self._worker.result()  # raises what it died of
                raise errors.Unavailable(f"the watch of process {self._worker.pid} has ended")
            change = _decode(data)
            if change.event == "end":
                raise errors.from_code(change.code, change.text)
            yield change
