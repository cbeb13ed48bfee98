"""`orlop netns inspect`: show interfaces, routes, neighbours and rules of namespaces, as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

from orlop.client import Connection, networks


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="+")


def run(args: argparse.Namespace, connection: Connection) -> int:
    print(json.dumps([_view(connection, name) for name in args.name], indent=4))
    return 0


def _view(connection: Connection, name: str) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    from orlop.wire.services.links_pb2 import InspectPlaceRequest, Place

    found = connection.links.inspect(InspectPlaceRequest(place=Place(netns=name)))
    shown = MessageToDict(found, preserving_proto_field_name=True)
    return {
        "Name": name,
        "Path": networks.netns_path(connection, name),
        **{
            kind.title(): shown.get(kind, []) for kind in ("links", "routes", "neighbours", "rules")
        },
    }
