"""`orlop events`: follow what happens in the daemon."""

from __future__ import annotations

import argparse
import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message import Message

from orlop.client import Connection
from orlop.rpc.convert import any_type, nanoseconds
from orlop.rpc.events import unpacked
from orlop.wire.events_pb2 import ContainerCreate
from orlop.wire.services import events_pb2
from orlop.wire.types_pb2 import Envelope


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "filters", nargs="*", metavar="FILTER", help='such as topic~="^/tasks/"; any may match'
    )


def run(args: argparse.Namespace, connection: Connection) -> int:
    request = events_pb2.SubscribeRequest(filters=args.filters)
    for envelope in connection.events.subscribe(request):
        print(_line(envelope, as_json=args.json), flush=True)
    return 0


def _line(envelope: Envelope, *, as_json: bool) -> str:
    time, event = _time(envelope), _event(envelope)
    if as_json:
        return json.dumps(
            {
                "time": time,
                "namespace": envelope.namespace,
                "topic": envelope.topic,
                "event": event,
            }
        )
    return f"{time} {envelope.namespace} {envelope.topic} {json.dumps(event)}"


def _time(envelope: Envelope) -> str:
    seconds = nanoseconds(envelope.timestamp) / 1e9
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # after the year 9999, or before the first
        return f"{seconds:.3f}"


def _event(envelope: Envelope) -> object:
    """Its fields; type and bytes where these cannot be told, for anybody may publish anything."""
    event = unpacked(envelope.event)
    try:
        return _packed(envelope.event) if event is None else _fields(event)
    except (Error, ValueError):  # of a time within it
        return _packed(envelope.event)


def _fields(event: Message) -> dict[str, Any]:
    options = None
    if isinstance(event, ContainerCreate) and event.runtime.HasField("options"):
        options = _packed(event.runtime.options)  # which are of the runtime's own type
        event.runtime.ClearField("options")
    found: dict[str, Any] = MessageToDict(event, preserving_proto_field_name=True)
    if options is not None:
        found["runtime"]["options"] = options
    return found


def _packed(value: AnyMessage) -> dict[str, str]:
    return {"type": any_type(value), "value": b64encode(value.value).decode()}
