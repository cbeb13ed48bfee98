"""`orlop network connect`: put a container into one more network."""

from __future__ import annotations

import argparse

from orlop.client import Connection, containers, networks


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ip", default="", metavar="ADDRESS", help="its address there")
    add("--ip6", default="", metavar="ADDRESS", help="its address of IPv6 there")
    add("--alias", action="append", default=[], metavar="NAME", help="another name of it")
    add("network")
    add("container")


def run(args: argparse.Namespace, connection: Connection) -> int:
    container = containers.get(connection, args.container)
    networks.connect(
        connection, container, args.network, ip=args.ip, ip6=args.ip6, aliases=args.alias
    )
    return 0
