"""The events services: for clients on gRPC, and for shims, which only forward, on ttrpc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from google.protobuf.empty_pb2 import Empty

from orlop.events.exchange import Exchange
from orlop.rpc import CallContext, Service
from orlop.wire.services import events_pb2, events_ttrpc_pb2
from orlop.wire.types_pb2 import Envelope


class Forwarder(Protocol):
    """The exchange, or somebody who watches what goes into it."""

    def forward(self, envelope: Envelope, *, keep: bool = False) -> None: ...


class EventsService(Service):
    """`containerd.services.events.v1.Events`."""

    DESCRIPTOR = events_pb2.DESCRIPTOR.services_by_name["Events"]

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def publish(self, request: events_pb2.PublishRequest, ctx: CallContext) -> Empty:
        self._exchange.publish(ctx.require_namespace(), request.topic, request.event)
        return Empty()

    def forward(self, request: events_pb2.ForwardRequest, ctx: CallContext) -> Empty:
        self._exchange.forward(request.envelope)
        return Empty()

    def subscribe(
        self, request: events_pb2.SubscribeRequest, ctx: CallContext
    ) -> Iterator[Envelope]:
        # Not a generator: the subscription must be live before the call is answered. It ends
        # quietly when the server stops: a client that reads "cancelled" takes that for its own
        # doing and does not subscribe again.
        subscription = self._exchange.subscribe(request.filters)
        ctx.on_cancel(subscription.close)
        return subscription


class TtrpcEventsService(Service):
    """`containerd.services.events.ttrpc.v1.Events`: where shims send their tasks' events."""

    DESCRIPTOR = events_ttrpc_pb2.DESCRIPTOR.services_by_name["Events"]

    def __init__(self, exchange: Forwarder) -> None:
        self._exchange = exchange

    def forward(self, request: events_ttrpc_pb2.ForwardRequest, ctx: CallContext) -> Empty:
        self._exchange.forward(request.envelope)
        return Empty()
