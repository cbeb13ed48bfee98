"""Events as the page shows them: what happened, and to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orlop.events import Subscription
from orlop.events.fields import EventFields
from orlop.rpc.convert import nanoseconds
from orlop.status.model import Event, Skipped
from orlop.wire.types_pb2 import Envelope

_AT_ONCE = 100
"""A collection of garbage may publish tens of thousands: nobody reads these."""
_SUBJECTS = ("container_id", "id", "name", "key", "digest", "sandbox_id")


def batches(subscription: Subscription, seconds: float) -> Iterator[Sequence[Event | Skipped]]:
    """What happens, as it does; an empty batch when nothing did for so long.

    Raises ResourceExhausted when the reader falls behind.
    """
    while (envelopes := subscription.take(seconds)) is not None:
        found: list[Event | Skipped] = []
        if skipped := max(0, len(envelopes) - _AT_ONCE):
            found.append(Skipped(skipped))
        found += map(shown, envelopes[skipped:])
        yield found


def shown(envelope: Envelope) -> Event:
    fields = EventFields(envelope)
    subjects = (fields.lookup(("event", each)) for each in _SUBJECTS)
    status = fields.lookup(("event", "exit_status"))
    return Event(
        at=nanoseconds(envelope.timestamp) / 1e9,
        namespace=envelope.namespace,
        topic=envelope.topic,
        subject=next((each for each in subjects if each), ""),
        exec=fields.lookup(("event", "exec_id")) or "",
        status=int(status) if status is not None else None,
    )
