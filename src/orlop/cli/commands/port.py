"""`orlop port`: show where a container's ports are published."""

from __future__ import annotations

import argparse

from orlop.client import Connection, containers, ports
from orlop.errors import NotFound


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container")
    parser.add_argument("port", nargs="?", metavar="PORT[/PROTOCOL]", help="only this one")


def run(args: argparse.Namespace, connection: Connection) -> int:
    container = containers.get(connection, args.container)
    found = ports.published(connection, container)
    if args.port is None:
        for each in found:
            print(f"{each.name} -> {each.address}")
        return 0
    wanted = args.port if "/" in args.port else f"{args.port}/tcp"
    chosen = [each for each in found if each.name == wanted]
    if not chosen:
        raise NotFound(f'published port "{wanted}" of container "{container.id}"')
    for each in chosen:
        print(each.address)
    return 0
