"""Between Python and the well-known protobuf types."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_NANO = 1_000_000_000
# Go's zero time, year 1: how containerd says "no time", such as the exit time of a running task.
_GO_ZERO_SECONDS = -62_135_596_800


def timestamp(nanoseconds: int) -> Timestamp:
    """A time in nanoseconds since the epoch; 0 is "no time": Go's zero time on the wire."""
    stamp = Timestamp()
    set_timestamp(stamp, nanoseconds)
    return stamp


def set_timestamp(stamp: Timestamp, nanoseconds: int) -> None:
    """As `timestamp`, into a message that is there."""
    stamp.seconds, stamp.nanos = timestamp_parts(nanoseconds)


def timestamp_parts(nanoseconds: int) -> tuple[int, int]:
    """The seconds and nanoseconds of a `timestamp`."""
    return divmod(nanoseconds, _NANO) if nanoseconds else (_GO_ZERO_SECONDS, 0)


def nanoseconds(stamp: Timestamp) -> int:
    """Nanoseconds since the epoch; 0 for an absent time or Go's zero time."""
    if stamp.seconds == _GO_ZERO_SECONDS:
        return 0
    return stamp.seconds * _NANO + stamp.nanos


def any_type(value: Any) -> str:
    """The message name in a type URL: what comes after the last slash."""
    return value.type_url.rpartition("/")[2]


def pack(message: Message) -> Any:
    """An Any with the bare message name as its type URL, as containerd writes them."""
    return Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())
