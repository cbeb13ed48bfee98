"""`orlop store adopt`: take over what a containerd has stored."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from orlop.cli import table
from orlop.client import Connection
from orlop.wire.services import store_pb2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="only what was not taken")
    parser.add_argument("root", nargs="?", type=Path, default="/var/lib/containerd",
        help="of a containerd that is stopped (%(default)s)")  # fmt: skip


def run(args: argparse.Namespace, connection: Connection) -> int:
    taken: Counter[str] = Counter()
    size, failed = 0, False
    request = store_pb2.AdoptRequest(path=str(args.root.absolute()))
    for each in connection.store.adopt(request):
        name = f"{each.namespace}/{each.name}"
        if each.problem:
            print(f"{each.kind} {name} is not taken: {each.problem}", file=sys.stderr)
            failed = failed or each.kind != "container"
            continue
        taken[each.kind] += 1
        if each.kind == "blob":
            taken[each.how] += 1
            size += each.size if each.how != "shared" else 0
        elif not args.quiet:
            print(f"{each.kind} {name}")
    how = ", ".join(f"{taken[word]} {word}" for word in ("linked", "cloned", "copied", "shared"))
    print(
        f"taken: {taken['image']} images, {taken['lease']} leases, "
        f"{taken['blob']} blobs ({how}; {table.size(size)})",
        file=sys.stderr,
    )
    return 1 if failed else 0
