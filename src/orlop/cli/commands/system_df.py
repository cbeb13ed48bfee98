"""`orlop system df`: show what images and containers take of the disk."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from orlop.cli import form, table
from orlop.cli.measuring import measure
from orlop.client import Connection

if TYPE_CHECKING:
    from orlop.client.usage import Usage

_COLUMNS = {"TYPE": "Type", "TOTAL": "TotalCount", "ACTIVE": "Active", "SIZE": "Size",
            "RECLAIMABLE": "Reclaimable"}  # fmt: skip
_PARTS = {"TYPE": "Type", "NAME": "Name", "SIZE": "Size", "SHARED": "Shared", "UNIQUE": "Unique"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="each image and container")
    form.add_option(parser)


def run(args: argparse.Namespace, connection: Connection) -> int:
    found = measure(connection)
    if args.verbose:
        form.show(_parts(found), _PARTS, args.format)
        return 0
    stopped = [each for each in found.containers if not each.alive]
    form.show(
        [
            _row("Images", len(found.images), sum(each.used for each in found.images),
                 found.images_size, found.images_unused),
            _row("Containers", len(found.containers), len(found.containers) - len(stopped),
                 sum(each.size for each in found.containers), sum(each.size for each in stopped)),
            _row("Layers without image", found.layers_count, found.layers_active,
                 found.layers, found.layers_unused),
            _row("Held otherwise", found.held_count, found.held_count, found.held, 0),
            _row("Writes begun", found.ingests_count, found.ingests_count, found.ingests, 0),
        ],
        _COLUMNS,
        args.format,
    )  # fmt: skip
    return 0


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, Any]:
    share = f" ({100 * reclaimable // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": total,
        "Active": active,
        "Size": table.size(size),
        "Reclaimable": f"{table.size(reclaimable)}{share}",
    }


def _parts(found: Usage) -> list[dict[str, str]]:
    images = [
        {
            "Type": "image",
            "Name": image.name,
            "Size": table.size(image.size),
            "Shared": table.size(image.size - image.unique),
            "Unique": table.size(image.unique),
        }
        for image in found.images
    ]
    containers = [
        {
            "Type": "container",
            "Name": each.id,
            "Size": table.size(each.size),
            "Shared": table.size(0),
            "Unique": table.size(each.size),
        }
        for each in found.containers
    ]
    return images + containers
