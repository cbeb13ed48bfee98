"""`orlop image prune`: remove the names of images that no container uses."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence

from orlop.cli.each import for_each
from orlop.cli.terminal import agreed
from orlop.client import Connection, containers, images
from orlop.errors import InvalidArgument
from orlop.rpc.convert import nanoseconds

_UNTIL = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Keep = Callable[[images.Image], bool]


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="also those that have a tag")
    add("-f", "--force", action="store_true", help="do not ask first")
    add("--filter", action="append", default=[], metavar="KEY=VALUE",
        help="until=24h (made longer ago) or label=KEY[=VALUE]; all must match")  # fmt: skip


def run(args: argparse.Namespace, connection: Connection) -> int:
    tests = [_test(text) for text in args.filter]
    names = unused(connection, tagged=args.all, tests=tests)
    if names and not args.force:
        question = f"remove {len(names)} image names that no container uses?"
        if not agreed(question):
            return 1
    return for_each(names, lambda name: images.remove(connection, name))


def unused(connection: Connection, *, tagged: bool, tests: Sequence[Keep] = ()) -> list[str]:
    """The names of images that no container uses and that pass all tests; without `tagged` only of
    those that have no tag."""
    used = {record.image for record in containers.list_records(connection)}
    return [
        image.name
        for image in images.list_all(connection)
        if image.name not in used
        and (tagged or _is_dangling(image.name))
        and all(test(image) for test in tests)
    ]


def _is_dangling(name: str) -> bool:
    """Named by digest alone, as what no tag names any longer."""
    path, at, _ = name.partition("@")
    return bool(at) and ":" not in path.rpartition("/")[2]


def _test(text: str) -> Keep:
    key, _, value = text.partition("=")
    if key == "until" and (match := _UNTIL.fullmatch(value)):
        latest = time.time() - int(match[1]) * _SECONDS[match[2]]
        return lambda image: nanoseconds(image.created_at) / 1e9 < latest
    if key == "label" and value:
        label, equals, wanted = value.partition("=")
        return lambda image: label in image.labels and (not equals or image.labels[label] == wanted)
    raise InvalidArgument(f'filter "{text}" is neither until=24h nor label=KEY[=VALUE]')
