"""`orlop run`: create a container from an image and run it, attached or detached."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from orlop.cli import detaching, run_options
from orlop.cli.attaching import farewell, joined, joined_by
from orlop.cli.session import Left
from orlop.client import Connection, attach, containers, images, log_files, names, restarts
from orlop.client.stdio import Fifos
from orlop.errors import InvalidArgument, OrlopError
from orlop.rpc.context import validate_identifier
from orlop.wire.services import containers_pb2
from orlop.wire.types_pb2 import Mount as WireMount

FAILURE = 125
Record = containers_pb2.Container


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="print the id and leave it running")
    add("-i", "--interactive", action="store_true", help="connect our standard input")
    detaching.add_signals_option(parser)
    detaching.add_option(parser)
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("--rm", action="store_true", help="remove the container when it ends")
    add("--name", help="what to call the container (default: its id)")
    add("--entrypoint", help="replace the image's entrypoint")
    add(
        "--stop-signal", default="", metavar="SIGNAL", help="what stop sends (default: the image's)"
    )
    add("--stop-timeout", type=float, metavar="SECONDS",
        help="patience of stop before the kill (10)")  # fmt: skip
    add("--runtime", default=containers.RUNTIME, metavar="NAME", help="(%(default)s)")
    run_options.configure(parser)
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE", help="label it")
    add("--restart", default="no", metavar="POLICY",
        help="when it ends: no, always, unless-stopped, on-failure[:N] (%(default)s)")  # fmt: skip
    add("--snapshotter", default="", help="where its filesystem is (default: the daemon's)")
    add("--pull", choices=["missing", "always", "never"], default="missing",
        help="when to pull the image (%(default)s)")  # fmt: skip
    add("image")
    add("command", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace, connection: Connection) -> int:
    detaching.keys(args.detach_keys)  # a bad sequence is told before anything is made
    if args.name:
        validate_identifier("container", args.name)
    record, mounts = _create(args, connection, _image(args, connection))
    try:
        if args.detach:
            return _detached(connection, record, mounts)
        if attach.LABEL in record.labels:
            return _attached(args, connection, record, mounts)
        return _attached_alone(args, connection, record, mounts)
    except _NotStarted as error:
        # A container whose process never ran is of no use to anybody.
        containers.remove(connection, record, force=True)
        print(f"orlop: {error.cause}", file=sys.stderr)
        return containers.failure_status(error.cause)
    except (BrokenPipeError, KeyboardInterrupt):
        if args.rm:
            containers.remove(connection, record, force=True)
        raise


def _create(
    args: argparse.Namespace, connection: Connection, image: images.ImageView
) -> tuple[Record, list[WireMount]]:
    with names.naming(connection) if args.name else nullcontext():
        container, labels = (
            names.claim(connection, args.name) if args.name else (names.random_id(), {})
        )
        wanted = containers.Wanted(
            image=image,
            id=container,
            command=args.command,
            entrypoint=[args.entrypoint] if args.entrypoint else None,
            env=run_options.environment(args),
            cwd=args.workdir,
            user=args.user,
            labels={**_labels(args, connection, container), **labels},
            runtime=args.runtime,
            spec=run_options.spec(args, container),
        )
        return containers.create(connection, wanted)


def _labels(args: argparse.Namespace, connection: Connection, container: str) -> dict[str, str]:
    labels = {
        **dict(entry.partition("=")[::2] for entry in args.label),
        **_restart_labels(args),
    }
    if args.stop_signal:
        containers.signal_number(args.stop_signal)
        labels[containers.STOP_SIGNAL_LABEL] = args.stop_signal
    if args.stop_timeout is not None:
        labels[containers.STOP_TIMEOUT_LABEL] = f"{args.stop_timeout:g}"
    shared = attach.supports(connection, args.runtime)
    if shared:
        labels[attach.LABEL] = attach.STDIN if args.interactive else attach.OUTPUT
    if shared or args.detach:
        labels[log_files.LABEL] = f"file://{log_files.path(connection, container)}"
    if args.detach and args.rm:
        labels[containers.AUTO_REMOVE_LABEL] = "true"
    return labels


def _restart_labels(args: argparse.Namespace) -> dict[str, str]:
    found = restarts.labels(args.restart)
    if found and args.rm:
        raise InvalidArgument("--rm and --restart exclude each other")
    if found and not args.detach:
        raise InvalidArgument("--restart is for containers that run detached; give -d")
    return found


class _NotStarted(Exception):
    """The container's process could not be made to run."""

    def __init__(self, cause: OrlopError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except OrlopError as error:
        raise _NotStarted(error) from error


def _image(args: argparse.Namespace, connection: Connection) -> images.ImageView:
    name = images.full_name(args.image)
    if args.pull == "always" or (args.pull == "missing" and not images.exists(connection, name)):
        _pull(connection, name, args.snapshotter)
    return images.view(connection, name, snapshotter=args.snapshotter)


def _pull(connection: Connection, name: str, snapshotter: str) -> None:
    from orlop.cli import progress, transfers
    from orlop.client.auth import answer_for
    from orlop.client.pull import pull_image

    # Without a terminal stderr is the container's.
    with transfers.advising(name), progress.shown("auto", plain=False) as show:
        pull_image(connection, name, snapshotter=snapshotter, answer=answer_for(), on_progress=show)


def _detached(connection: Connection, record: Record, mounts: list[WireMount]) -> int:
    with _starting():
        containers.create_task(connection, record.id, mounts, attach.streams(record))
        containers.start_task(connection, record.id)
    print(record.id)
    return 0


def _attached(
    args: argparse.Namespace, connection: Connection, record: Record, mounts: list[WireMount]
) -> int:
    with ExitStack() as stack:
        with _starting():
            containers.create_task(connection, record.id, mounts, attach.streams(record))
            session = stack.enter_context(joined(args, connection, record))
            session.start()
        try:
            status = session.run()
        except Left as left:
            if args.rm:
                containers.remove_when_ended(connection, record)
            return farewell(left)
    if args.rm:
        containers.remove(connection, record, force=True)
    return status


def _attached_alone(
    args: argparse.Namespace, connection: Connection, record: Record, mounts: list[WireMount]
) -> int:
    """By streams that nobody else can have: all that other people's shims know."""
    folder = connection.directory / "fifo"
    with Fifos(folder, record.id, stdin=args.interactive, terminal=args.tty) as fifos:
        fifos.end_input = lambda: containers.close_stdin(connection, record.id)
        with ExitStack() as stack:
            with _starting():
                containers.create_task(connection, record.id, mounts, fifos.streams)
                session = stack.enter_context(joined_by(args, connection, record.id, fifos))
                session.start()
            try:
                status = session.run()
            except Left as left:
                return farewell(left)
    if args.rm:
        containers.remove(connection, record, force=True)
    return status
