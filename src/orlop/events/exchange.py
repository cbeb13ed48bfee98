"""The exchange: publishers put events in, subscriptions carry them out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from orlop.errors import InvalidArgument, OrlopError, ResourceExhausted
from orlop.events.fields import EventFields
from orlop.metadata import filters
from orlop.metadata.filters import Filter
from orlop.rpc.context import validate_identifier
from orlop.rpc.convert import nanoseconds, pack, timestamp
from orlop.tally import Counter
from orlop.wire.types_pb2 import Envelope

# A garbage collection may publish tens of thousands of events at once; the envelopes are shared
# between subscribers.
BUFFER = 32_768
LATECOMERS = 30.0
"""Seconds after the start of a daemon in which its clients are expected to subscribe again."""


class Publisher(Protocol):
    """Where a room sends its events, once what they tell is durable."""

    def publish(self, namespace: str, topic: str, message: Message, *, keep: bool = False) -> None:
        """Tell subscribers that `message` happened in `namespace`; never blocks.

        With `keep`, those who subscribe soon are told as well.
        """
        ...


class Subscription:
    """The events that one subscriber wants, in order: an iterator that waits for the next.

    Ends quietly after `close()`, and with ResourceExhausted when its buffer of `capacity` events
    ran full. Closing the context closes the subscription.
    """

    def __init__(
        self, exchange: Exchange, wanted: Filter, topics: frozenset[str], capacity: int
    ) -> None:
        self._exchange = exchange
        self._wanted = wanted
        self._topics = topics
        self._capacity = capacity
        self._changed = threading.Condition()
        self._buffer: deque[Envelope] = deque()
        self._ended = False
        self._error: OrlopError | None = None

    def offer(self, envelope: Envelope, fields: EventFields) -> None:
        """Buffer the event if it is wanted (the exchange only)."""
        if self._topics and envelope.topic not in self._topics:
            return
        if not self._wanted.matches(fields.lookup):
            return
        with self._changed:
            if self._ended:
                return
            if len(self._buffer) < self._capacity:
                self._buffer.append(envelope)
                self._changed.notify()
                return
            self._ended = True
            self._error = ResourceExhausted(f"event subscriber fell {self._capacity} events behind")
            self._changed.notify_all()
        # Its reader still gets what is in the buffer; this one, and all that come, it does not.
        self._exchange.dropped.add()
        self._exchange.drop(self)

    @property
    def waiting(self) -> int:
        """Events that its reader has not taken yet."""
        return len(self._buffer)

    def close(self) -> None:
        """End the subscription and wake its reader; what is buffered is dropped. Idempotent."""
        with self._changed:
            self._ended = True
            self._buffer.clear()
            self._changed.notify_all()
        self._exchange.drop(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Envelope:
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._ended)
            if self._buffer:
                return self._buffer.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def take(self, seconds: float | None) -> list[Envelope] | None:
        """All that is there, after a wait for a first one, None for no limit; None at the end.

        Raises as iterating does.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._ended, seconds)
            found = list(self._buffer)
            self._buffer.clear()
            if found or not self._ended:
                return found
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Exchange:
    """Takes events from any thread and hands each to every subscription that wants it.

    Events of one publisher reach every subscriber in the order of publication. Those that are
    published with `keep` in the exchange's first `LATECOMERS` seconds also reach who subscribes in
    that time: they tell of what an earlier daemon's subscribers were following.
    """

    def __init__(self, *, capacity: int = BUFFER) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._kept: deque[tuple[Envelope, EventFields]] = deque(maxlen=capacity)
        self._keep_until = time.monotonic() + LATECOMERS
        self.published = Counter("topic")
        self.dropped = Counter()

    def publish(self, namespace: str, topic: str, message: Message, *, keep: bool = False) -> None:
        """Publish `message`, or the event that an Any holds, as of now.

        Raises InvalidArgument for a bad namespace or topic.
        """
        event = message if isinstance(message, Any) else pack(message)
        self.forward(
            Envelope(
                timestamp=timestamp(time.time_ns()), namespace=namespace, topic=topic, event=event
            ),
            keep=keep,
        )

    def forward(self, envelope: Envelope, *, keep: bool = False) -> None:
        """Pass on an event that another process published, its time and bytes untouched.

        Raises InvalidArgument for a bad namespace or topic, or without a time.
        """
        validate_identifier("namespace", envelope.namespace)
        _validate_topic(envelope.topic)
        if nanoseconds(envelope.timestamp) == 0:
            raise InvalidArgument(f'event "{envelope.topic}" has no timestamp')
        self.published.add(envelope.topic)
        fields = EventFields(envelope)
        with self._lock:
            if keep and time.monotonic() < self._keep_until:
                self._kept.append((envelope, fields))
            subscriptions = self._subscriptions
        for subscription in subscriptions:
            subscription.offer(envelope, fields)

    def subscribe(
        self, wanted: Iterable[str] = (), *, topics: frozenset[str] = frozenset()
    ) -> Subscription:
        """The events from now on, of all namespaces, that match any of the filters `wanted`.

        With `topics`, only events of these: cheaper than a filter, which is tried on every event.
        The caller closes it. Raises InvalidArgument for a filter that does not parse.
        """
        subscription = Subscription(self, filters.parse(wanted), topics, self._capacity)
        with self._lock:
            if time.monotonic() >= self._keep_until:
                self._kept.clear()
            for envelope, fields in self._kept:
                subscription.offer(envelope, fields)
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def backlogs(self) -> list[int]:
        """For every subscription, how many events wait for its reader."""
        return [each.waiting for each in self._subscriptions]

    def drop(self, subscription: Subscription) -> None:
        """Forget an ended subscription (subscriptions only)."""
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)


def _validate_topic(topic: str) -> None:
    """A topic is `/` and identifiers with `/` between them."""
    if not topic.startswith("/"):
        raise InvalidArgument(f'event topic "{topic}" must start with "/"')
    for part in topic[1:].split("/"):
        validate_identifier("event topic component", part)
