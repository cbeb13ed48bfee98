"""`orlop store df`: show what all that is stored takes of the disk."""

from __future__ import annotations

import argparse
from typing import Any

from orlop.cli import form, table
from orlop.client import Connection
from orlop.wire.services import store_pb2

_COLUMNS = {"KIND": "Kind", "FILES": "Files", "SIZE": "Size", "ON DISK": "OnDisk"}
_PARTS = {"KIND": "Kind", "NAME": "Name", "SIZE": "Size", "SHARED BY": "SharedBy",
          "IMAGES": "Images"}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true",
        help="each blob and snapshot of the namespace, and the images that share it")  # fmt: skip
    form.add_option(parser)


def run(args: argparse.Namespace, connection: Connection) -> int:
    if args.verbose:
        form.show(_parts(connection), _PARTS, args.format)
        return 0
    found = connection.store.usage(store_pb2.UsageRequest()).taken
    rows = [_row(each.kind, each.files, each.size, each.on_disk) for each in found if each.files]
    total = [sum(values) for values in zip(*map(_numbers, found), strict=True)]
    form.show([*rows, _row("all", *total)], _COLUMNS, args.format)
    return 0


def _numbers(taken: store_pb2.Taken) -> tuple[int, int, int]:
    return taken.files, taken.size, taken.on_disk


def _row(kind: str, files: int, size: int, on_disk: int) -> dict[str, Any]:
    return {
        "Kind": kind,
        "Files": files,
        "Size": table.size(size),
        "OnDisk": table.size(on_disk),
    }


def _parts(connection: Connection) -> list[dict[str, Any]]:
    from orlop.client import usage

    return [
        {
            "Kind": "blob" if each.kind == "content" else each.kind,
            "Name": each.name,
            "Size": table.size(each.size),
            "SharedBy": len(each.images),
            "Images": each.images,
        }
        for each in usage.of(connection).parts
    ]
