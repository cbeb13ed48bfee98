"""`orlop create`: make a container, to be started later."""

from __future__ import annotations

import argparse

from orlop.cli.commands import run as run_command
from orlop.client import Connection

FAILURE = run_command.FAILURE


def configure(parser: argparse.ArgumentParser) -> None:
    run_command.configure_creation(parser)
    # Nobody is there when it ends: what applies to a container that runs detached applies here.
    parser.set_defaults(detach=True, idle=True)


def run(args: argparse.Namespace, connection: Connection) -> int:
    record, _ = run_command.create(args, connection)
    print(record.id)
    return 0
