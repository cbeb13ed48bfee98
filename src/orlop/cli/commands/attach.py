"""`orlop attach`: share the input and output of a running container."""

from __future__ import annotations

import argparse

from orlop.cli import detaching
from orlop.cli.attaching import farewell, joined
from orlop.cli.session import Left
from orlop.client import Connection, containers, states
from orlop.errors import FailedPrecondition

FAILURE = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-stdin", action="store_false", dest="interactive",
        help="do not connect our standard input")  # fmt: skip
    detaching.add_signals_option(parser)
    detaching.add_option(parser)
    parser.add_argument("container")


def run(args: argparse.Namespace, connection: Connection) -> int:
    record = containers.get(connection, args.container)
    task = states.task_of(connection, record.id)
    state = states.of(record, task)
    if state.status == "paused":
        raise FailedPrecondition(f'container "{args.container}" is paused: unpause it first')
    if not state.alive:
        raise FailedPrecondition(f'container "{args.container}" does not run: start it first')
    with joined(args, connection, record) as session:
        session.watch(task.pid if task is not None else 0)
        try:
            return session.run(redraw=True)
        except Left as left:
            return farewell(left)
