"""The built-in shim: a fork of the warm server, with a listening socket in its hand."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from google.protobuf.any_pb2 import Any

from orlop.errors import Unavailable
from orlop.fork.client import ForkServer
from orlop.rpc import CallContext
from orlop.rpc.convert import nanoseconds
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Endpoint, Exit
from orlop.runtime.shim import Killable
from orlop.runtime.spare import ENTRY, Spare
from orlop.shim.cleanup import cleanup
from orlop.shim.keeper import NAME

BACKLOG = 128


class ForkedShims:
    """Forks shims that listen below `sockets` and send events to `ttrpc_address`."""

    mark = "orlop"

    def __init__(
        self, forks: ForkServer, sockets: Path, ttrpc_address: str, *, debug: bool = False
    ) -> None:
        self._forks = forks
        self._sockets = sockets
        self._ttrpc_address = ttrpc_address
        self._debug = debug
        self._spare = Spare(forks)
        self._spare.want()
        sockets.mkdir(mode=0o711, exist_ok=True)

    def close(self) -> None:
        """End the shim that nobody has needed; all others live on."""
        self._spare.close()

    def start(
        self, ctx: CallContext, bundle: Bundle, options: Any | None
    ) -> tuple[Endpoint, Killable | None]:
        """Fork a shim; its socket listens before it runs. Raises Unavailable."""
        # A new name each time: the shim that had the id before may be removing its own still.
        path = self._sockets / secrets.token_hex(16)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(os.fspath(path))
            try:
                path.chmod(0o600)
                listener.listen(BACKLOG)
                endpoint = Endpoint(3, f"unix://{path}")
                bundle.endpoint = endpoint
                args = {
                    "namespace": bundle.namespace,
                    "id": bundle.id,
                    "bundle": os.fspath(bundle.path),
                    "ttrpc_address": self._ttrpc_address,
                    "debug": self._debug,
                }
                fd = listener.fileno()
                pid = self._spare.give(args, fd)
                if pid is None:
                    pid = self._forks.spawn(ENTRY, args, [fd], name=NAME)
                process = self._hold(pid, path)
            except BaseException:
                path.unlink()
                raise
        return endpoint, process

    def _hold(self, pid: int, path: Path) -> Process:
        try:
            return Process(pid, path, self._spare.want)
        except OSError as error:  # for want of descriptors or memory
            for kill in (os.kill, os.killpg):  # it may lead no group yet
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
            self._spare.want()
            raise Unavailable(f"shim pid={pid} cannot be held: {error}") from error

    def end(self, bundle: Bundle) -> None:
        """Nothing: it ends with its `Process`, or by itself."""

    def clean_up(self, bundle: Bundle) -> Exit:
        answer = cleanup(bundle.namespace, bundle.id, os.fspath(bundle.path))
        return Exit(answer.exit_status, nanoseconds(answer.exited_at), answer.pid)

    def sockets(self) -> list[str]:
        """The paths of all sockets, also of those that nobody listens at any more."""
        return [os.fspath(path) for path in self._sockets.iterdir()]


class Process:
    """A forked shim's process, held so that its pid cannot become another's."""

    def __init__(self, pid: int, socket: Path, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self._pid = pid
        self._socket = socket
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = -1

    def kill(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
                # And the runc that it may be running, or that would go on making a container.
                os.killpg(self._pid, signal.SIGKILL)
        self._socket.unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._on_close()
