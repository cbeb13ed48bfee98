"""`orlop events`: follow what happens in the daemon."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from orlop.client import Connection
from orlop.rpc.convert import any_type, nanoseconds
from orlop.wire import events_pb2
from orlop.wire.services import events_pb2 as events_service_pb2
from orlop.wire.services import images_pb2
from orlop.wire.types_pb2 import Envelope


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "filters", nargs="*", metavar="FILTER", help='such as topic~="^/tasks/"; any may match'
    )


def run(args: argparse.Namespace, connection: Connection) -> int:
    request = events_service_pb2.SubscribeRequest(filters=args.filters)
    for envelope in connection.events.subscribe(request):
        print(_line(envelope, as_json=args.json), flush=True)
    return 0


def _line(envelope: Envelope, *, as_json: bool) -> str:
    seconds = nanoseconds(envelope.timestamp) / 1e9
    time = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    event = _decode(envelope)
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


def _decode(envelope: Envelope) -> object:
    name = any_type(envelope.event).rpartition(".")[2]
    kind: type[Message] | None = getattr(events_pb2, name, None) or getattr(images_pb2, name, None)
    if kind is None:
        return {"type": envelope.event.type_url}
    message = kind.FromString(envelope.event.value)
    return MessageToDict(message, preserving_proto_field_name=True)
