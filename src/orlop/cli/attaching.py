"""How commands join the streams of a container: which keys leave it, and what happens then."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from orlop.cli import detaching
from orlop.cli.session import Left, Session
from orlop.client import Connection, attach, restarts
from orlop.client.containers import spec_of
from orlop.client.stdio import Channel
from orlop.wire.services import containers_pb2


@contextmanager
def joined(
    args: argparse.Namespace, connection: Connection, container: containers_pb2.Container
) -> Iterator[Session]:
    """A session on the task of a container, which is there already, started or not.

    `args` has `detach_keys`, `sig_proxy`, and whether our input is wanted as `interactive`.
    """
    channel = attach.attach(connection, container)
    channel.takes_input = channel.takes_input and args.interactive
    with closing(channel):
        terminal = bool(spec_of(container)["process"].get("terminal"))
        with _session(args, connection, container, channel, terminal=terminal) as session:
            yield session


@contextmanager
def joined_by(
    args: argparse.Namespace,
    connection: Connection,
    container: containers_pb2.Container,
    channel: Channel,
    exec_id: str = "",
) -> Iterator[Session]:
    """A session by streams that are made already, on a process that is given `args.tty`."""
    with _session(
        args, connection, container, channel, terminal=args.tty, exec_id=exec_id
    ) as session:
        yield session


@contextmanager
def _session(
    args: argparse.Namespace,
    connection: Connection,
    container: containers_pb2.Container,
    channel: Channel,
    *,
    terminal: bool,
    exec_id: str = "",
) -> Iterator[Session]:
    def interrupted() -> None:
        restarts.expect(connection, container, running=False)  # it is to end for good

    keys = detaching.keys(args.detach_keys)
    session = Session(
        connection,
        container.id,
        channel,
        exec_id=exec_id,
        terminal=terminal,
        keys=keys if terminal and channel.shared else b"",
        forward_signals=getattr(args, "sig_proxy", True) and not terminal,
        on_interrupt=None if exec_id else interrupted,
    )
    with closing(session):
        yield session


def farewell(left: Left) -> int:
    """Say that the user has left what runs on; the exit status."""
    if not left.status:
        print("read escape sequence", file=sys.stderr)
    return left.status
