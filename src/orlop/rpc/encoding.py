"""Protobuf written by hand, for lists of very many records.

To fill message objects and to write those takes three times as long as to ask the database, which
has all text as the bytes that go out. Shorter answers are best left to protobuf. What reads a
message takes empty fields for absent ones, so none is left out here for being empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from orlop.rpc.convert import timestamp_parts

_KEY, _VALUE = b"\x0a", b"\x12"
# An answer of a stream: large enough to make little of what each costs.
_BATCH = 64 << 10


class Encoded:
    """A message that is written already, for handlers to return."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 - as messages call it
        return self._data


def delimited(number: int) -> bytes:
    """The tag of a field of text, bytes or a message; for fields up to 15, as `varint` is."""
    return bytes((number << 3 | 2,))


def integer(number: int) -> bytes:
    """The tag of a field of an integer or enum."""
    return bytes((number << 3,))


def field(tag: bytes, value: bytes) -> bytes:
    """A `delimited` field."""
    return tag + _SIZES[len(value)] + value


def varint(value: int) -> bytes:
    """A length, or the value of an `integer` field, which must not be negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class _Sizes(dict[int, bytes]):
    """The varints of lengths; of those that are common they are there."""

    def __missing__(self, size: int) -> bytes:
        return varint(size)


_SIZES = _Sizes((size, varint(size)) for size in range(2048))


def times(created: bytes, created_at: int, updated: bytes, updated_at: int) -> bytes:
    """Two fields (their tags, and nanoseconds), each with the `convert.timestamp` of a time."""
    first = _stamp(created_at)
    last = first if updated_at == created_at else _stamp(updated_at)
    return created + _SIZES[len(first)] + first + updated + _SIZES[len(last)] + last


def _stamp(nanoseconds: int) -> bytes:
    seconds, nanos = timestamp_parts(nanoseconds)
    return b"\x08%b\x10%b" % (_seconds(seconds), bytes((
        nanos & 0x7F | 0x80, nanos >> 7 & 0x7F | 0x80, nanos >> 14 & 0x7F | 0x80,
        nanos >> 21 & 0x7F | 0x80, nanos >> 28,
    )))  # fmt: skip # a varint that may be longer than it must be, in a third of the time


@lru_cache(maxsize=256)
def _seconds(value: int) -> bytes:
    return varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def maps(tag: bytes, entries: Iterable[tuple[bytes, bytes, bytes]]) -> dict[bytes, bytes]:
    """The map field of each owner, of entries of owner, key and value."""
    found: dict[bytes, bytes] = {}
    for owner, key, value in entries:
        # What `field` does, in the loop that is run most.
        entry = _KEY + _SIZES[len(key)] + key + _VALUE + _SIZES[len(value)] + value
        found[owner] = found.get(owner, b"") + tag + _SIZES[len(entry)] + entry
    return found


def batches(fields: Iterable[bytes]) -> Iterator[Encoded]:
    """Messages for a stream, of fields that may be repeated."""
    batch, size = [], 0
    for each in fields:
        batch.append(each)
        size += len(each)
        if size >= _BATCH:
            yield Encoded(b"".join(batch))
            batch, size = [], 0
    if batch:
        yield Encoded(b"".join(batch))
