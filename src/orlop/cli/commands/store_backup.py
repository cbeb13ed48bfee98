"""`orlop store backup`: save what is stored, while all goes on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from orlop.cli import table
from orlop.cli.counting import Counting
from orlop.client import Connection
from orlop.wire.services import store_pb2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("folder", type=Path, help="which is not there yet; it becomes a root")


def run(args: argparse.Namespace, connection: Connection) -> int:
    summary = store_pb2.BackupSummary()
    counting = Counting("saving blobs", quiet=args.quiet)
    path = args.folder.absolute()
    for answer in connection.store.backup(store_pb2.BackupRequest(path=str(path))):
        if answer.WhichOneof("part") == "progress":
            counting.show(answer.progress.done, answer.progress.total)
        else:
            summary = answer.summary
    counting.clear()
    for digest in summary.lost:
        print(f"blob {digest} has lost its file, and is not saved", file=sys.stderr)
    how = ", ".join(f"{count} {way}" for way, count in sorted(summary.how.items()))
    print(f"{path}: {summary.blobs} blobs, {table.size(summary.bytes)}{how and f' ({how})'}")
    return 1 if summary.lost else 0
