"""What a subscriber's filter may ask about an event."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from orlop.metadata.filters import Path
from orlop.rpc.convert import any_type
from orlop.wire import events_pb2
from orlop.wire.services import images_pb2, network_pb2
from orlop.wire.types_pb2 import Envelope

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


Event = TypeVar("Event", bound=Message)


def decoded(envelope: Envelope, kind: type[Event]) -> Event | None:
    """The event in an envelope, None if it is no `kind`: anybody may publish under any topic."""
    try:
        return kind.FromString(envelope.event.value)
    except DecodeError:
        return None


class EventFields:
    """The fields of one envelope: `namespace`, `topic`, and `event.<field path>` of known events.

    The event is decoded once, when a filter first asks for it.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._decoded = False
        self._event: Message | None = None

    def lookup(self, path: Path) -> str | None:
        """The field's text; None for an absent field and in an event of unknown type."""
        match path:
            case ("namespace",):
                return self._envelope.namespace or None
            case ("topic",):
                return self._envelope.topic or None
            case ("event", *rest):
                if not self._decoded:
                    self._event, self._decoded = _decode(self._envelope.event), True
                return None if self._event is None else _field(self._event, rest)
        return None


def _decode(event: Any) -> Message | None:
    known = _KNOWN.get(any_type(event))
    if known is None:
        return None
    try:
        return known.FromString(event.value)
    except DecodeError:
        return None


def _field(message: Message, path: list[str]) -> str | None:
    name, *rest = path or [""]
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return None
    value = getattr(message, name)
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            found: str | None = value.get(".".join(rest))
            return found
        return None if field.is_repeated else _field(value, rest)
    return None if rest or field.is_repeated else _text(value)


def _text(value: object) -> str | None:
    return str(value).lower() if isinstance(value, bool) else str(value) or None
