"""`orlop run`: create a container from an image and run it, attached or detached."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from orlop.cli import (
    detaching,
    health_options,
    log_options,
    options,
    run_network,
    run_options,
    run_values,
)
from orlop.cli.attaching import farewell, joined, joined_by
from orlop.cli.each import failed, told
from orlop.cli.session import Left
from orlop.client import (
    Connection,
    attach,
    autoremoval,
    containers,
    creating,
    images,
    log_files,
    names,
    restarts,
)
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    OrlopError,
    Unavailable,
)
from orlop.oci.spec import Bind
from orlop.rpc.context import validate_identifier
from orlop.wire.services import containers_pb2
from orlop.wire.types_pb2 import Mount as WireMount

FAILURE = 125
Record = containers_pb2.Container


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="print the id and leave it running")
    detaching.add_signals_option(parser)
    detaching.add_option(parser)
    configure_creation(parser)
    parser.set_defaults(idle=False)


def configure_creation(parser: argparse.ArgumentParser) -> None:
    """What `create` is told as well."""
    add = parser.add_argument
    add("-i", "--interactive", action="store_true", help="connect our standard input")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("--rm", action="store_true", help="remove the container when it ends")
    add("--cidfile", default="", metavar="FILE", help="write its id to a new file")
    add("--name", help="what to call the container (default: its id)")
    add("--entrypoint", help="replace the image's entrypoint")
    add(
        "--stop-signal", default="", metavar="SIGNAL", help="what stop sends (default: the image's)"
    )
    add("--stop-timeout", type=float, metavar="SECONDS",
        help="patience of stop before the kill (10)")  # fmt: skip
    add("--runtime", default=containers.RUNTIME, metavar="NAME", help="(%(default)s)")
    run_options.configure(parser)
    log_options.configure(parser)
    health_options.configure(parser)
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE", help="label it")
    add("--label-file", action="append", default=[], metavar="FILE", help="labels, one a line")
    add("--volumes-from", action="append", default=[], metavar="CONTAINER[:ro]",
        help="show the volumes of another container")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress of a pull")
    add("--restart", default="no", metavar="POLICY",
        help="when it ends: no, always, unless-stopped, on-failure[:N] (%(default)s)")  # fmt: skip
    add("--snapshotter", default="", help="where its filesystem is (default: the daemon's)")
    add("--pull", choices=["missing", "always", "never"], default="missing",
        help="when to pull the image (%(default)s)")  # fmt: skip
    add("image")
    add("command", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace, connection: Connection) -> int:
    detaching.keys(args.detach_keys)  # a bad sequence is told before anything is made
    record, mounts = create(args, connection)
    try:
        if args.detach:
            return _detached(connection, record, mounts)
        if attach.LABEL in record.labels:
            return _attached(args, connection, record, mounts)
        return _attached_alone(args, connection, record, mounts)
    except _NotStarted as error:
        # A container whose process never ran is of no use to anybody.
        containers.remove(connection, record, force=True)
        print(f"orlop: {told(error.cause)}", file=sys.stderr)
        return containers.failure_status(error.cause)
    except (BrokenPipeError, KeyboardInterrupt):
        if args.rm:
            containers.remove(connection, record, force=True)
        raise


def create(args: argparse.Namespace, connection: Connection) -> tuple[Record, list[WireMount]]:
    """Make the container that the options describe, but no task of it."""
    if args.name:
        validate_identifier("container", args.name)
    if args.cidfile and Path(args.cidfile).exists():
        raise AlreadyExists(f'file "{args.cidfile}" of a container\'s id')
    record, mounts = _create(args, connection, _image(args, connection))
    if args.cidfile:
        try:
            Path(args.cidfile).write_text(record.id)
        except OSError as error:
            containers.remove(connection, record, force=True)
            reason = str(error.strerror).lower()
            raise FailedPrecondition(f'file "{args.cidfile}": {reason}') from None
    return record, mounts


def _create(
    args: argparse.Namespace, connection: Connection, image: images.ImageView
) -> tuple[Record, list[WireMount]]:
    network = run_network.choose(args, connection, image.config)
    with names.naming(connection) if args.name else nullcontext():
        container, labels = (
            names.claim(connection, args.name) if args.name else (names.random_id(), {})
        )
        wanted = creating.Wanted(
            image=image,
            id=container,
            command=args.command,
            entrypoint=_entrypoint(args.entrypoint),
            env=run_options.environment(args),
            cwd=args.workdir,
            user=args.user,
            groups=args.group_add,
            cdi_devices=run_options.cdi_devices(args),
            cdi_folders=[each for each in args.cdi_spec_dirs.split(",") if each],
            cgroup_parent=args.cgroup_parent,
            labels={
                **health_options.labels(args, image.config),
                **network.labels,
                **run_options.namespace_labels(args, connection),
                # Also those of a network, if they are given.
                **_labels(args, connection, container),
                **labels,
            },
            snapshot_labels=run_values.storage_labels(args.storage_opt),
            runtime=args.runtime,
            spec=run_options.spec(args, container, network, _others_volumes(args, connection)),
        )
        return creating.create(connection, wanted)


def _entrypoint(given: str | None) -> list[str] | None:
    """None is the image's; an empty one is none."""
    if given is None:
        return None
    return [given] if given else []


def _others_volumes(args: argparse.Namespace, connection: Connection) -> list[Bind]:
    """What `--volumes-from CONTAINER[:ro]` names: the binds of other containers."""
    found: list[Bind] = []
    for text in args.volumes_from:
        name, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw"):
            raise InvalidArgument(f'"{text}" is not CONTAINER[:ro]')
        found += creating.binds_of(containers.get(connection, name), read_only=mode == "ro")
    return found


def _labels(args: argparse.Namespace, connection: Connection, container: str) -> dict[str, str]:
    lines = [line for path in args.label_file for line in options.lines_of(path)]
    labels = {
        **dict(entry.partition("=")[::2] for entry in [*lines, *args.label]),
        **_restart_labels(args),
    }
    if args.idle:
        labels.pop(restarts.STATUS, "")  # nobody has started it yet
    if args.stop_signal:
        containers.signal_number(args.stop_signal)
        labels[containers.STOP_SIGNAL_LABEL] = args.stop_signal
    if args.stop_timeout is not None:
        labels[containers.STOP_TIMEOUT_LABEL] = f"{args.stop_timeout:g}"
    shared = attach.supports(connection, args.runtime)
    if shared:
        labels[attach.LABEL] = attach.STDIN if args.interactive else attach.OUTPUT
    log = log_options.uri(args, connection, container, kept=shared or args.detach)
    if log:
        labels[log_files.LABEL] = log
    if args.rm:
        by = autoremoval.BY_DAEMON if args.detach else autoremoval.attended()
        labels[autoremoval.LABEL] = by
    return labels


def _restart_labels(args: argparse.Namespace) -> dict[str, str]:
    found = restarts.labels(args.restart)
    if found and args.rm:
        raise InvalidArgument("--rm and --restart exclude each other")
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
    found = None if args.pull == "always" else images.find_local(connection, args.image)
    if found is None:
        name = images.full_name(args.image)
        if args.pull != "never":
            _pull(args, connection, name)
        found = images.get(connection, name)
    return images.view(connection, found, snapshotter=args.snapshotter)


def _pull(args: argparse.Namespace, connection: Connection, name: str) -> None:
    from orlop.cli import progress, transfers
    from orlop.client.auth import answer_for
    from orlop.client.pull import pull_image

    # Without a terminal stderr is the container's.
    mode = "none" if args.quiet else "auto"
    with transfers.advising(name), progress.shown(mode, plain=False) as show:
        pull_image(
            connection,
            name,
            snapshotter=args.snapshotter,
            answer=answer_for(),
            on_progress=show,
        )


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
            return farewell(left)
    if args.rm:
        _remove(connection, record)
    return status


def _attached_alone(
    args: argparse.Namespace, connection: Connection, record: Record, mounts: list[WireMount]
) -> int:
    """By streams that nobody else can have: all that other people's shims know."""
    from orlop.client.fifos import Fifos

    folder = connection.directory / "fifo"
    with Fifos(folder, record.id, stdin=args.interactive, terminal=args.tty) as fifos:
        fifos.end_input = lambda: containers.close_stdin(connection, record.id)
        with ExitStack() as stack:
            with _starting():
                containers.create_task(connection, record.id, mounts, fifos.streams)
                session = stack.enter_context(joined_by(args, connection, record, fifos))
                session.start()
            try:
                status = session.run()
            except Left as left:
                return farewell(left)
    if args.rm:
        _remove(connection, record)
    return status


def _remove(connection: Connection, record: Record) -> None:
    """Remove the container that has ended: whether that can be done, the exit status is its own."""
    try:
        autoremoval.remove(connection, record)
    except Unavailable:
        pass  # the next daemon does it, once we have gone
    except OrlopError as error:
        failed(error)
