"""`orlop logs`: show what a detached container printed."""

from __future__ import annotations

import argparse
import sys

from orlop.client import Connection, containers, logs


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on until the container ends")
    add("--tail", type=int, metavar="N", help="the last N lines only")
    add("container")


def run(args: argparse.Namespace, connection: Connection) -> int:
    record = containers.get(connection, args.container)
    output = sys.stdout.buffer
    for chunk in logs.read(connection, record, tail=args.tail, follow=args.follow):
        output.write(chunk)
        output.flush()
    return 0
