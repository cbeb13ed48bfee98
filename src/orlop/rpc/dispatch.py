"""What both servers do around a call: the context, and errors that are nobody's."""

from __future__ import annotations

import logging
import os
import socket
import stat
import threading
import time
from pathlib import Path

from orlop.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    OrlopError,
    Unknown,
)
from orlop.rpc.context import CallContext

_log = logging.getLogger(__name__)

UNIX_BACKLOG = 1024
# sockaddr_un.sun_path is 108 bytes with the final zero (unix(7)).
_PATH_MAX = 107


class LiveCalls:
    """The contexts of the calls being served, so that a stopping server can end them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[CallContext] = set()
        self._stopping = False

    def add(self, context: CallContext) -> None:
        with self._lock:
            self._live.add(context)
            stopping = self._stopping
        if stopping:
            context.cancel()

    def remove(self, context: CallContext) -> None:
        with self._lock:
            self._live.discard(context)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def cancel_all(self) -> None:
        with self._lock:
            self._stopping = True
            live = list(self._live)
        for context in live:
            context.cancel()


def deadline_after(seconds: float | None) -> float | None:
    """A deadline on the monotonic clock; None for none, and for one beyond what can be waited."""
    if seconds is None or seconds > threading.TIMEOUT_MAX:
        return None
    return time.monotonic() + seconds


def failure(
    error: Exception, service: str, method: str, context: CallContext, *, gone: bool
) -> OrlopError:
    """The error to answer with; one that no domain raised on purpose is logged.

    `gone` tells that the call was over before: then whatever broke off the work is its end. Work
    that was cancelled because its time ran out has run out of time: clients go by that.
    """
    if isinstance(error, Cancelled) and context.expired:
        return DeadlineExceeded()
    if isinstance(error, OrlopError):
        return error
    if gone:
        return Cancelled(f"client has gone: {error}")
    if isinstance(error, OSError):
        _log.warning("rpc=%s/%s failed: %s", service, method, error)
        return Unknown(str(error))
    _log.exception("rpc=%s/%s failed", service, method)
    return Unknown(f"{type(error).__name__}: {error}")


def bind_unix(path: Path, mode: int, uid: int, gid: int) -> socket.socket:
    """A socket at `path`, of that mode and these owners before it listens; -1 is our own.

    Raises as `claim_socket_path` does, and OSError.
    """
    claim_socket_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        os.chown(path, uid, gid)
        path.chmod(mode)
    except OSError:
        listener.close()
        raise
    return listener


def claim_socket_path(path: Path) -> None:
    """Make way for a new socket at `path`: remove one that nobody listens on.

    Raises FailedPrecondition when somebody does or something else is there, InvalidArgument when
    the path is too long for a socket.
    """
    if len(os.fsencode(path)) > _PATH_MAX:
        raise InvalidArgument(f'"{path}" is longer than the {_PATH_MAX} bytes of a socket path')
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FailedPrecondition(f'"{path}" exists and is not a socket')
    except FileNotFoundError:
        return
    if _somebody_listens(path):
        raise FailedPrecondition(f'"{path}" is in use: another server listens on it')
    path.unlink()


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass  # its queue of clients is full
    return True
