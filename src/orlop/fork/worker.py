"""Workers: one job in a forked process, with an answer.

The daemon's side is `Worker`, a context manager; the job's side is a function
`job(args, fds, report)` whose result is sent back. Messages are JSON objects on a SOCK_SEQPACKET
socket: any number of `{"progress": …}`, then one `{"result": …}` or `{"error": {…}}`; a long one
takes several packets, each of which begins with whether it is the last. A worker dies with the fork
server, and so with its owner.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from orlop import errors
from orlop.fork.client import ForkServer
from orlop.sys.process import set_parent_death_signal
from orlop.tally import Counter

MAX_MESSAGE = 64 * 1024
_MORE, _LAST = b"+", b"."
_END_LIMIT = 5000  # milliseconds
Report = Callable[[Any], None]


class Spawner(Protocol):
    """What a worker needs of the fork server, and where it counts itself while it is there."""

    @property
    def workers(self) -> Counter: ...

    def spawn(
        self, entry: str, args: Mapping[str, Any], fds: Sequence[int] = ..., *, name: str
    ) -> int: ...


class Worker:
    """A running job. `entry` names a function `job(args, fds, report)` as "module:function".

    Use as a context manager: leaving it ends the worker if it still runs.
    """

    def __init__(
        self,
        server: ForkServer | Spawner,
        entry: str,
        args: Mapping[str, Any],
        fds: Sequence[int] = (),
        *,
        name: str = "orlop-worker",
    ) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._done = False
        self._lock = threading.Lock()
        with theirs:
            request = {"job": entry, "args": dict(args)}
            self.pid = server.spawn(
                "orlop.fork.worker:child", request, [theirs.fileno(), *fds], name=name
            )
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._pidfd = -1
        except OSError as error:  # for want of descriptors or memory
            self._give_up()
            raise errors.Unavailable(f"worker {self.pid} cannot be held: {error}") from error
        self._leave: Callable[[], None] | None = partial(server.workers.add, name, by=-1)
        server.workers.add(name)

    def _give_up(self) -> None:
        """End one that is held by nothing but its socket, whose end is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with self._socket, contextlib.suppress(OSError):
            self._socket.settimeout(_END_LIMIT / 1000)
            while self._socket.recv(MAX_MESSAGE):
                pass

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()
        self._socket.close()
        self._await_end()
        with self._lock:
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
            leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def _await_end(self) -> None:
        """It has been told to die; until it has, it may still write where it was told to."""
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(_END_LIMIT)

    def cancel(self) -> None:
        """Kill the worker if it still runs; safe from any thread, also after the context."""
        with self._lock:
            if self._done or self._pidfd < 0:
                return
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def result(self, on_progress: Callable[[Any], None] | None = None) -> Any:
        """Wait for the job's result.

        Raises the `OrlopError` that the job raised, or Unavailable if the worker died.
        """
        while True:
            answer = json.loads(self._message())
            if "progress" in answer:
                if on_progress is not None:
                    on_progress(answer["progress"])
                continue
            self._done = True
            if "error" in answer:
                raise errors.from_code(answer["error"]["code"], answer["error"]["message"])
            return answer["result"]

    def _message(self) -> bytes:
        pieces = []
        while packet := self._socket.recv(MAX_MESSAGE):
            pieces.append(packet[1:])
            if packet.startswith(_LAST):
                return b"".join(pieces)
        raise errors.Unavailable(f"worker {self.pid} died before its job was done")


class Companion:
    """A worker that is spoken with while it works, over a socket of its own: `channel`.

    The job has the other end, of the type `kind`, as its first descriptor, before its own of `fds`.
    """

    def __init__(
        self,
        server: Spawner,
        entry: str,
        args: Mapping[str, Any],
        kind: socket.SocketKind,
        fds: Sequence[int] = (),
        *,
        name: str,
    ) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, kind)
        try:
            with theirs:
                self._worker = Worker(server, entry, args, [theirs.fileno(), *fds], name=name)
        except BaseException:
            self.channel.close()
            raise

    @property
    def pid(self) -> int:
        return self._worker.pid

    def close(self) -> None:
        """Hang up, and end the worker if it still runs."""
        self.channel.close()
        self._worker.__exit__(None, None, None)


def child(request: dict[str, Any], fds: list[int]) -> int:
    """Entry of a worker process: run the job and send its answer.

    It ends with the fork server, which ends with the daemon: nobody else would want its work.
    """
    set_parent_death_signal(signal.SIGKILL)
    if os.getppid() == 1:
        return 1  # too late for the signal
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # that nobody reads is an error to be told
    channel = socket.socket(fileno=fds[0])

    def report(value: Any) -> None:
        _send(channel, {"progress": value})

    try:
        module, _, function = request["job"].partition(":")
        job = getattr(importlib.import_module(module), function)
        answer = {"result": job(request["args"], fds[1:], report)}
    except errors.OrlopError as error:
        answer = {"error": {"code": error.code, "message": error.message}}
    except OSError as error:
        answer = {"error": {"code": errors.Unknown.code, "message": str(error)}}
    except Exception as error:  # noqa: BLE001 - a defect in a job must still be told
        with contextlib.suppress(OSError):
            traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        answer = {"error": {"code": errors.Internal.code, "message": text}}
    try:
        _send(channel, answer)
    except BrokenPipeError:
        return 1
    return 0


def _send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    data, size = json.dumps(message).encode(), MAX_MESSAGE - 1
    last = max(len(data) - 1, 0) // size * size
    for at in range(0, last, size):
        channel.send(_MORE + data[at : at + size])
    channel.send(_LAST + data[last:])
