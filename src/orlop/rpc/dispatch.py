"""What both servers do around a call: the context, and errors that are nobody's."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orlop.errors import FailedPrecondition, OrlopError, Unknown
from orlop.rpc.context import CallContext

_log = logging.getLogger(__name__)

# Called after each call: service, method, status code, seconds.
OnCall = Callable[[str, str, int, float], None]

UNIX_BACKLOG = 1024


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

    def cancel_all(self) -> None:
        with self._lock:
            self._stopping = True
            live = list(self._live)
        for context in live:
            context.cancel()


def deadline_after(seconds: float | None) -> float | None:
    """A deadline on the monotonic clock."""
    return None if seconds is None else time.monotonic() + seconds


def as_orlop_error(error: Exception, service: str, method: str) -> OrlopError:
    """The error to answer with; one that no domain raised on purpose is logged with its trace."""
    if isinstance(error, OrlopError):
        return error
    if isinstance(error, OSError):
        _log.warning("rpc=%s/%s failed: %s", service, method, error)
        return Unknown(str(error))
    _log.exception("rpc=%s/%s failed", service, method)
    return Unknown(f"{type(error).__name__}: {error}")


def claim_socket_path(path: Path) -> None:
    """Make way for a new socket at `path`: remove one that nobody listens on.

    Raises FailedPrecondition when somebody does.
    """
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except FileNotFoundError:
            return
        except OSError:
            path.unlink()
            return
    raise FailedPrecondition(f'"{path}" is in use: another server listens on it')
