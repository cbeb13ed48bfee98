"""`orlop checkpoint create`: keep the state of a container's processes."""

from __future__ import annotations

import argparse

from orlop.cli.checkpoints import add_folder_option
from orlop.client import Connection, checkpoints, containers
from orlop.wire.runc_pb2 import CheckpointOptions


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--leave-running", action="store_true", help="let the container go on; else it ends")
    add("--tcp-established", action="store_true", help="with open TCP connections")
    add("--ext-unix-sk", action="store_true", help="with Unix sockets to outside")
    add("--shell-job", action="store_true", help="with a terminal of outside")
    add("--file-locks", action="store_true", help="with locks on files")
    add_folder_option(parser)
    add("container")
    add("checkpoint", help="a name for it")


def run(args: argparse.Namespace, connection: Connection) -> int:
    options = CheckpointOptions(
        exit=not args.leave_running,
        open_tcp=args.tcp_established,
        external_unix_sockets=args.ext_unix_sk,
        terminal=args.shell_job,
        file_locks=args.file_locks,
    )
    container = containers.get(connection, args.container)
    folder = args.checkpoint_dir
    checkpoints.create(connection, container, args.checkpoint, folder=folder, options=options)
    print(args.checkpoint)
    return 0
