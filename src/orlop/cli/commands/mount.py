"""`orlop mount`: show an image's files in a folder, or what is shown where."""

from __future__ import annotations

import argparse

from orlop.client import Connection, images, mounted
from orlop.errors import InvalidArgument


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rw", action="store_true", help="writable; what is written goes with `umount`")
    add("--snapshotter", default="", help="where it is unpacked (default: the daemon's)")
    add("image", nargs="?", help="must be here")
    add("folder", nargs="?", metavar="DIR", help="a folder of this host")


def run(args: argparse.Namespace, connection: Connection) -> int:
    if args.image is None:
        _list(connection)
        return 0
    if args.folder is None:
        raise InvalidArgument(f'where is "{args.image}" to be mounted? orlop mount IMAGE DIR')
    name = images.local_name(connection, args.image)
    mounted.show(connection, name, args.folder, writable=args.rw, snapshotter=args.snapshotter)
    print(args.folder)
    return 0


def _list(connection: Connection) -> None:
    from orlop.cli import table

    table.show(
        ("DIR", "IMAGE", "ACCESS", "SNAPSHOTTER"),
        [
            (
                each.folder,
                each.image,
                ("rw" if each.writable else "ro") if each.there else "gone",
                each.snapshotter,
            )
            for each in mounted.shown(connection)
        ],
    )
