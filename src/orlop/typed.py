"""JSON and plain values as values of a type, for threads that may want the same type at once.

msgspec makes what it must know of a type when that is first wanted, and another thread that wants
the type meanwhile finds it half made, which ends the process (msgspec 0.22). So whatever decodes to
a type comes by here, where it is made by one thread; `tests/unit/test_typed.py` sees to that.
"""

from __future__ import annotations

import threading
from types import UnionType
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_lock = threading.Lock()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


@overload
def decoder(kind: type[T]) -> msgspec.json.Decoder[T]: ...
@overload
def decoder(kind: UnionType) -> msgspec.json.Decoder[Any]: ...


def decoder(kind: type[T] | UnionType) -> msgspec.json.Decoder[T]:
    """What decodes JSON to values of `kind`; the same one for each who asks."""
    found = _decoders.get(kind)
    if found is None:
        with _lock:
            found = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return found


def decode(data: bytes | str, kind: type[T]) -> T:
    """JSON as a value of `kind`; raises msgspec.DecodeError, UnicodeDecodeError, RecursionError."""
    return decoder(kind).decode(data)


def convert(value: Any, kind: type[T]) -> T:
    """What was decoded already as a value of `kind`; raises msgspec.ValidationError."""
    decoder(kind)
    return msgspec.convert(value, kind)
