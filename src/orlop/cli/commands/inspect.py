"""`orlop inspect`: all about containers or images, as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

from google.protobuf.json_format import MessageToDict

from orlop.cli.each import failed
from orlop.client import Connection, containers, images
from orlop.errors import NotFound, OrlopError
from orlop.wire.services import tasks_pb2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="a container or an image")


def run(args: argparse.Namespace, connection: Connection) -> int:
    found, status = [], 0
    for name in args.names:
        try:
            found.append(_inspect(connection, name))
        except OrlopError as error:
            status = failed(error)
    print(json.dumps(found, indent=4))
    return status


def _inspect(connection: Connection, name: str) -> dict[str, Any]:
    try:
        return _container(connection, name)
    except NotFound:
        pass
    try:
        return _image(connection, images.full_name(name))
    except NotFound:
        raise NotFound(f'container or image "{name}"') from None


def _container(connection: Connection, name: str) -> dict[str, Any]:
    record = containers.get(connection, name)
    spec, extensions = containers.spec_of(record), sorted(record.extensions)
    # Any values of types that only their writers know cannot be shown as messages.
    for field in ("spec", "extensions"):
        record.ClearField(field)
    record.runtime.ClearField("options")
    shown = MessageToDict(record, preserving_proto_field_name=True)
    shown["spec"] = spec
    shown["extensions"] = extensions
    try:
        request = tasks_pb2.GetRequest(container_id=record.id)
        shown["task"] = MessageToDict(
            connection.tasks.get(request).process, preserving_proto_field_name=True
        )
    except NotFound:
        shown["task"] = None
    return shown


def _image(connection: Connection, name: str) -> dict[str, Any]:
    image = images.get(connection, name)
    shown = MessageToDict(image, preserving_proto_field_name=True)
    shown["config"] = images.config(connection, image)
    return shown
