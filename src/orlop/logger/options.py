"""What a log writer is to do, as the query of its URI tells it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from orlop.errors import InvalidArgument

PROGRAM = os.path.join(os.path.dirname(sys.executable), "orlop-logger")  # noqa: PTH118, PTH120
NAME = "orlop-logger"
JSON, CRI = "json-file", "cri"
FORMATS = (JSON, CRI)
DEFAULT_MAX_SIZE = 10 << 20
DEFAULT_MAX_FILE = 10
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3}


class Options(NamedTuple):
    """Where a log goes and how. A file is closed before it holds more than `max_size` bytes (0 is
    no limit), and `max_file` of them are kept, the one that is written to included."""

    path: str
    format: str = JSON
    max_size: int = DEFAULT_MAX_SIZE
    max_file: int = DEFAULT_MAX_FILE

    @property
    def uri(self) -> str:
        """The `binary://` URI that starts the writer."""
        query = urlencode(
            {
                "format": self.format,
                "path": self.path,
                "max-size": self.max_size,
                "max-file": self.max_file,
            }
        )
        return f"binary://{quote(PROGRAM)}?{query}"


def parse(values: Mapping[str, str]) -> Options:
    """Options by their names. Raises InvalidArgument for one that is unknown or makes no sense."""
    known = {"path", "format", "max-size", "max-file"}
    for name in values:
        if name not in known:
            raise InvalidArgument(f'log option "{name}" is none of {", ".join(sorted(known))}')
    path, kind = values.get("path", ""), values.get("format", JSON)
    if not path.startswith("/"):
        raise InvalidArgument(f'log option path="{path}" is not an absolute path')
    if kind not in FORMATS:
        raise InvalidArgument(f'log option format="{kind}" is none of {", ".join(FORMATS)}')
    return Options(
        path,
        kind,
        size(values["max-size"]) if "max-size" in values else DEFAULT_MAX_SIZE,
        _count(values["max-file"]) if "max-file" in values else DEFAULT_MAX_FILE,
    )


def of_uri(uri: str) -> Options | None:
    """The options in a writer's URI, None if it is another program's or makes no sense."""
    parts = urlsplit(uri)
    program = unquote(parts.path)
    if parts.scheme != "binary" or program.rpartition("/")[2] != NAME:
        return None
    try:
        return parse(dict(parse_qsl(parts.query, keep_blank_values=True)))
    except InvalidArgument:
        return None


def size(text: str) -> int:
    """`10m` in bytes; 0 and -1 are no limit."""
    lower = text.lower().removesuffix("b").removesuffix("i")
    unit = lower[-1:] if lower[-1:] in _UNITS else ""
    digits = lower.removesuffix(unit) if unit else lower
    if text in ("0", "-1"):
        return 0
    if not (digits.isascii() and digits.isdecimal()) or not int(digits):
        raise InvalidArgument(f'log option max-size="{text}" is not a size such as 10m')
    return int(digits) << 10 * _UNITS[unit]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 1000:
        raise InvalidArgument(f'log option max-file="{text}" is not a number from 1 to 1000')
    return int(text)
