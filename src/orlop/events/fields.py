"""What a subscriber's filter may ask about an event."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from orlop.metadata.filters import Path
from orlop.rpc.events import unpacked
from orlop.wire.types_pb2 import Envelope

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
                    self._event, self._decoded = unpacked(self._envelope.event), True
                return None if self._event is None else _field(self._event, rest)
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
