"""Operations as messages, and what is found as messages: fields of the same names on both sides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

import msgspec
from google.protobuf.message import Message

from orlop.errors import InvalidArgument
from orlop.network import operations as op
from orlop.network.model import Change, Counters, Link
from orlop.wire.services import links_pb2 as wire
from orlop.wire.services import network_pb2

Resolve = Callable[[wire.Place], str]
"""From a place to the path of its namespace."""

_NESTED: dict[str, type[msgspec.Struct]] = {"Route": op.Route, "Rule": op.Rule}
OPERATIONS: dict[str, type[op.Operation]] = {
    re.sub("(?<!^)(?=[A-Z])", "_", each.__name__).lower(): each
    for each in get_args(op.AnyOperation)
}
"""By the names that they have in `Operation`."""


def operation(ns: str, message: Message, resolve: Resolve) -> op.AnyOperation:
    """One operation in the namespace `ns`, from its message; InvalidArgument for half a one."""
    (kind,) = (each for each in OPERATIONS.values() if each.__name__ == message.DESCRIPTOR.name)
    values = _values(message, resolve)
    if kind is op.AddLink:
        # A cable whose other end nobody mentions is one in this namespace.
        values["peer_ns"] = values.get("peer_ns", ns)
    for each in msgspec.structs.fields(kind):
        if each.required and each.name not in values:
            raise InvalidArgument(f'{message.DESCRIPTOR.name} without "{each.name}"')
    made: op.AnyOperation = kind(ns=ns, **values)  # type: ignore[assignment]
    return made


def _values(message: Message, resolve: Resolve) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if isinstance(value, wire.Place):
            found[field.name.replace("place", "ns")] = resolve(value)
        elif isinstance(value, Message):
            found[field.name] = _NESTED[value.DESCRIPTOR.name](**_values(value, resolve))
        else:
            found[field.name] = value
    if message.DESCRIPTOR.name == "Rule":
        found["family"] = found["family"] or 4
    return found


def operations(request: wire.ApplyRequest, resolve: Resolve) -> Iterable[op.AnyOperation]:
    """The operations of a list; InvalidArgument for one that says nothing."""
    for number, each in enumerate(request.operations, 1):
        which = each.WhichOneof("operation")
        if which is None:
            raise InvalidArgument(f"operation {number} of {len(request.operations)} is none")
        place = each.place if each.HasField("place") else request.place
        yield operation(resolve(place), getattr(each, which), resolve)


def link(found: Link) -> network_pb2.Link:
    fields = {name: getattr(found, name) for name in Link.__struct_fields__}
    return network_pb2.Link(**{**fields, "counters": counters(found.counters)})


def counters(found: Counters) -> network_pb2.Counters:
    return network_pb2.Counters(**msgspec.structs.asdict(found))


def route(found: op.Route) -> wire.Route:
    return wire.Route(**msgspec.structs.asdict(found))


def change(found: Change) -> wire.WatchResponse:
    return wire.WatchResponse(
        event=found.event.upper().replace("-", "_"),
        link=None if found.link is None else link(found.link),
        address=found.address,
        interface=found.interface,
        route=None if found.route is None else route(found.route),
    )
