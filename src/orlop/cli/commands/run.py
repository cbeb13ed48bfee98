"""`orlop run`: create a container from an image and run it, attached or detached."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.cli import run_options
from orlop.cli.session import Session
from orlop.client import Connection, containers, images, log_files, restarts
from orlop.client.stdio import Fifos, Streams
from orlop.errors import InvalidArgument, OrlopError
from orlop.rpc.context import validate_identifier
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.types_pb2 import Mount as WireMount

FAILURE = 125


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="print the id and leave it running")
    add("-i", "--interactive", action="store_true", help="connect our standard input")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("--rm", action="store_true", help="remove the container when it ends")
    add("--name", help="the container's id (default: a random one)")
    add("--entrypoint", help="replace the image's entrypoint")
    add(
        "--stop-signal", default="", metavar="SIGNAL", help="what stop sends (default: the image's)"
    )
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
    container = args.name or containers.random_id()
    validate_identifier("container", container)
    image = _image(args, connection)
    log = log_files.path(connection, container) if args.detach else None
    labels = {
        **dict(entry.partition("=")[::2] for entry in args.label),
        **_restart_labels(args),
    }
    if args.stop_signal:
        containers.signal_number(args.stop_signal)
        labels[containers.STOP_SIGNAL_LABEL] = args.stop_signal
    if log is not None:
        labels[log_files.LABEL] = f"file://{log}"
        if args.rm:
            labels[containers.AUTO_REMOVE_LABEL] = "true"
    wanted = containers.Wanted(
        image=image,
        id=container,
        command=args.command,
        entrypoint=[args.entrypoint] if args.entrypoint else None,
        env=run_options.environment(args),
        cwd=args.workdir,
        user=args.user,
        labels=labels,
        runtime=args.runtime,
        spec=run_options.spec(args, container),
    )
    mounts = containers.create(connection, wanted)
    try:
        if log is not None:
            return _detached(connection, container, mounts, log, args.tty)
        return _attached(connection, container, mounts, args)
    except _NotStarted as error:
        # A container whose process never ran is of no use to anybody.
        _remove(connection, container)
        print(f"orlop: {error.cause}", file=sys.stderr)
        return containers.failure_status(error.cause)
    except (BrokenPipeError, KeyboardInterrupt):
        if args.rm:
            _remove(connection, container)
        raise


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


def _detached(
    connection: Connection, container: str, mounts: list[WireMount], log: Path, tty: bool
) -> int:
    uri = f"file://{log}"
    streams = Streams(stdout=uri, stderr="" if tty else uri, terminal=tty)
    with _starting():
        containers.create_task(connection, container, mounts, streams)
        connection.tasks.start(tasks_pb2.StartRequest(container_id=container))
    print(container)
    return 0


def _attached(
    connection: Connection,
    container: str,
    mounts: list[WireMount],
    args: argparse.Namespace,
) -> int:
    folder = connection.directory / "fifo"
    with Fifos(folder, container, stdin=args.interactive, terminal=args.tty) as fifos:
        session = Session(connection, container, fifos)
        try:
            with _starting():
                containers.create_task(connection, container, mounts, fifos.streams)
                session.start()
            status = session.run()
        finally:
            session.close()
    if args.rm:
        _remove(connection, container)
    return status


def _remove(connection: Connection, container: str) -> None:
    record: containers_pb2.Container = containers.get(connection, container)
    containers.remove(connection, record, force=True)
