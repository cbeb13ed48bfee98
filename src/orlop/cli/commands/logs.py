"""`orlop logs`: show what a detached container printed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import groupby

from orlop.cli.moments import moment
from orlop.client import Connection, containers, logs
from orlop.client.log_entries import Entry
from orlop.errors import InvalidArgument


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on until the container ends")
    add("-n", "--tail", type=_tail, metavar="N", help="the last N lines only")
    add("--since", type=moment, default=0, metavar="TIME", help="not before: a date, or 10m (ago)")
    add("--until", type=moment, metavar="TIME", help="only before: a date, or 10m (ago)")
    add("-t", "--timestamps", action="store_true", help="show when each line was printed")
    add("container")


def _tail(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is neither a number of lines nor all')
    return int(text)


def run(args: argparse.Namespace, connection: Connection) -> int:
    record = containers.get(connection, args.container)
    wanted = logs.Wanted(tail=args.tail, since=args.since, follow=args.follow)
    if args.until is not None:
        wanted = logs.Wanted(args.tail, args.since, args.until, args.follow)
    outputs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    stamps = Stamps()
    for batch in logs.read(connection, record, wanted):
        entries = stamps.add(batch) if args.timestamps else batch
        for stream, group in groupby(entries, lambda each: each.stream):
            output = outputs[stream]
            output.write(b"".join(each.data for each in group))
            output.flush()
    return 0


class Stamps:
    """Puts its time before each line, once, in however many pieces it comes."""

    def __init__(self) -> None:
        self._inside: set[str] = set()

    def add(self, entries: list[Entry]) -> Iterator[Entry]:
        for each in entries:
            if not each.time:
                raise InvalidArgument("the log has no times: it is a plain file")
            if each.stream not in self._inside:
                yield each._replace(data=f"{each.time} ".encode() + each.data)
            else:
                yield each
            if each.data.endswith(b"\n"):
                self._inside.discard(each.stream)
            else:
                self._inside.add(each.stream)
