"""Events by their type, as filters and people read them."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from orlop.rpc.convert import any_type
from orlop.wire import events_pb2
from orlop.wire.services import images_pb2, network_pb2

_MESSAGES: tuple[type[Message], ...] = (
    *(getattr(events_pb2, name) for name in events_pb2.DESCRIPTOR.message_types_by_name),
    images_pb2.ImageCreate,
    images_pb2.ImageUpdate,
    images_pb2.ImageDelete,
    network_pb2.NetworkCreate,
    network_pb2.NetworkDelete,
    network_pb2.NetworkAttach,
    network_pb2.NetworkDetach,
)
_KNOWN = {message.DESCRIPTOR.full_name: message for message in _MESSAGES}


def unpacked(event: Any) -> Message | None:
    """The event itself; None for one of another type, or that does not parse."""
    known = _KNOWN.get(any_type(event))
    if known is None:
        return None
    try:
        return known.FromString(event.value)
    except DecodeError:
        return None
