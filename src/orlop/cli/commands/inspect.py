"""`orlop inspect`: all about containers or images, as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

from google.protobuf.json_format import MessageToDict

from orlop.cli import form
from orlop.cli.container_view import view
from orlop.cli.each import failed
from orlop.client import Connection, containers, images
from orlop.errors import InvalidArgument, NotFound, OrlopError


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-f", "--format", default="", metavar="TEMPLATE",
        help="such as '{{.State.Status}}' or '{{json .Config.Env}}' (default: all)")  # fmt: skip
    add("--type", choices=["container", "image"], help="which of the two is meant")
    add("names", nargs="+", metavar="NAME", help="a container or an image")


def run(args: argparse.Namespace, connection: Connection) -> int:
    found, status = [], 0
    for name in args.names:
        try:
            found.append(_inspect(connection, name, args.type))
        except OrlopError as error:
            status = failed(error)
    if args.format in ("", "json"):
        print(json.dumps(found, indent=4))
    else:
        for each in found:
            print(form.filled(args.format, each))
    return status


def _inspect(connection: Connection, name: str, kind: str | None) -> dict[str, Any]:
    ambiguous: InvalidArgument | None = None
    if kind != "image":
        try:
            return view(connection, containers.get(connection, name))
        except NotFound:
            if kind:
                raise
        except InvalidArgument as error:
            ambiguous = error
    try:
        return _image(connection, images.local_name(connection, name))
    except NotFound:
        if ambiguous is not None:
            raise ambiguous from None
        what = kind or "container or image"
        raise NotFound(f'{what} "{name}"') from None


def _image(connection: Connection, name: str) -> dict[str, Any]:
    image = images.get(connection, name)
    shown: dict[str, Any] = MessageToDict(image, preserving_proto_field_name=True)
    shown["config"] = images.config(connection, image)
    return shown
