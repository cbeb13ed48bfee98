"""The log of a shim: a fifo in its bundle, whose lines go to the daemon's log."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from orlop import tracing
from orlop.rpc.reactor import Reactor

_log = logging.getLogger(__name__)

_CHUNK = 16 * 1024
_LINE_MAX = 64 * 1024
_LEVEL = re.compile(r"\blevel=([a-z]+)")
# As `orlop.shim.log` writes it.
_SPAN = re.compile(
    r'level=trace msg="([a-z -]+)" .*\btraceparent=(\S+) began=(\d+) ended=(\d+) status=(-?\d+)'
)
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.ERROR,
}


class ShimLog:
    """Reads the fifo at `path` until `close`.

    Open it before the shim starts: a shim that opens it for writing waits for a reader. It is held
    open for both, so it never ends when a shim closes it.
    """

    def __init__(self, path: Path, reactor: Reactor, container: str, namespace: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._reactor = reactor
        self._container = container
        self._namespace = namespace
        self._rest = b""
        reactor.register(self, self._readable)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Log what is there, and stop."""
        self._reactor.unregister(self, self._finish)

    def _finish(self) -> None:
        if self._fd >= 0:
            self._readable()
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_MAX:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text and not self._is_span(text):
                found = _LEVEL.search(text)
                level = _LEVELS.get(found[1], logging.INFO) if found else logging.INFO
                # The text has fields of its own, in a form of its own: it is shown as it is.
                _log.log(
                    level, "namespace=%s shim=%s said: %s", self._namespace, self._container, text
                )

    def _is_span(self, line: str) -> bool:
        """What the built-in shim had done for a call that is traced belongs into its trace."""
        found = _SPAN.fullmatch(line)
        if found is None:
            return False
        name, parent, began, ended, status = found.groups()
        about: tracing.Attributes = {
            "container.id": self._container,
            "process.exit.code": int(status),
        }
        times = tracing.Times(int(began), int(ended))
        error = "" if status == "0" else f"status {status}"
        tracing.record(name, about, parent={"traceparent": parent}, times=times, error=error)
        return True
