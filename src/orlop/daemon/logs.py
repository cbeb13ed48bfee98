"""The daemon's log: one line an event on standard error, as key=value or JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

from orlop import tracing

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_FIELD = re.compile(r"([a-z_]+)=([^\s\"]+) (?=\S)")


def set_up(level: str, form: str) -> None:
    """Send every log record to standard error; `form` is "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])


def _fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fields: dict[str, Any] = {
        "time": f"{seconds}.{int(record.msecs):03}Z",
        "level": record.levelname.lower(),
        "room": record.name.removeprefix("orlop."),
    }
    # Messages may begin with fields of their own: 'namespace=%s task=%s shim has died'.
    message = record.getMessage()
    while leading := _FIELD.match(message):
        fields[leading[1]] = leading[2]
        message = message[leading.end() :]
    fields["msg"] = message
    if (ids := tracing.ids()) is not None:
        fields |= {"trace_id": ids.trace, "span_id": ids.span}
    if record.exc_info:
        fields["trace"] = formatter.formatException(record.exc_info)
    return fields


class TextFormatter(logging.Formatter):
    """`time=… level=… room=… msg="…"`; a line break inside a value is written as \\n."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record, self)
        return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())


class JsonFormatter(logging.Formatter):
    """The same fields as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record, self), ensure_ascii=False)


def _quoted(value: str) -> str:
    plain = value.isprintable() and value and not any(mark in value for mark in ' ="\\')
    return value if plain else json.dumps(value, ensure_ascii=False)
