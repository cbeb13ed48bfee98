"""The shim's log: one line an event on standard error, which is the bundle's log fifo."""

from __future__ import annotations

import json
import os
import time

STDERR = 2


class Log:
    """Writes `level=… msg="…" key=value` lines; never blocks and never fails."""

    def __init__(self, *, debug: bool = False, **fields: str) -> None:
        self._debug = debug
        self._fields = fields

    def debug(self, message: str, **fields: object) -> None:
        if self._debug:
            self._write("debug", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        self._write("warning", message, fields)

    def error(self, message: str, **fields: object) -> None:
        self._write("error", message, fields)

    def ran(self, what: str, trace: str, began: int, status: int) -> None:
        """What a call that is traced has had done, which whoever reads the log makes a span of.

        `trace` is the call's traceparent, `began` in nanoseconds since 1970, `status` not 0 where
        it failed.
        """
        ended = time.time_ns()
        fields = {"traceparent": trace, "began": began, "ended": ended, "status": status}
        self._write("trace", what, fields)

    def _write(self, level: str, message: str, fields: dict[str, object]) -> None:
        pairs = {"level": level, "msg": message, **self._fields, **fields}
        line = " ".join(f"{key}={_quoted(str(value))}" for key, value in pairs.items())
        try:
            os.write(STDERR, line.encode(errors="replace") + b"\n")
        except OSError:
            pass  # nobody reads the log: a daemon that is down must not stop a container


def _quoted(value: str) -> str:
    plain = value.isprintable() and value and not any(mark in value for mark in ' ="\\')
    return value if plain else json.dumps(value)
