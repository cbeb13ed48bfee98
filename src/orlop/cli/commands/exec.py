"""`orlop exec`: run a command in a running container."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.cli import detaching
from orlop.cli.attaching import farewell, joined_by
from orlop.cli.each import told
from orlop.cli.options import environment, lines_of
from orlop.cli.session import Left
from orlop.cli.terminal import window_size
from orlop.client import Connection, attach, containers, names, states
from orlop.client.stdio import Channel, Streams
from orlop.errors import FailedPrecondition, NotFound, OrlopError, Unavailable
from orlop.wire.services import containers_pb2, tasks_pb2

if TYPE_CHECKING:
    from orlop.oci.users import User

FAILURE = 125
Record = containers_pb2.Container
_SETS = ("bounding", "effective", "permitted")


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="leave it running")
    add("-i", "--interactive", action="store_true", help="connect our standard input")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="set a variable")
    add("--env-file", action="append", default=[], metavar="FILE", help="variables, one a line")
    add("--privileged", action="store_true", help="all capabilities")
    detaching.add_option(parser)
    add("-w", "--workdir", help="working directory")
    add("-u", "--user", metavar="USER[:GROUP]", help="names or numbers")
    add("container")
    add("command", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace, connection: Connection) -> int:
    if not args.command:
        print("orlop: exec: name a command to run", file=sys.stderr)
        return FAILURE
    detaching.keys(args.detach_keys)
    record = containers.get(connection, args.container)
    _check_state(connection, record)
    process = AnyMessage(
        type_url=containers.PROCESS_TYPE,
        value=json.dumps(_process(args, connection, record)).encode(),
    )
    exec_id = f"exec-{os.urandom(6).hex()}"
    try:
        if args.detach:
            _exec(connection, record.id, exec_id, process, Streams(terminal=args.tty))
            connection.tasks.start(tasks_pb2.StartRequest(container_id=record.id, exec_id=exec_id))
            return 0
        return _attached(args, connection, record, exec_id, process)
    except OrlopError as error:
        print(f"orlop: {told(error)}", file=sys.stderr)
        return containers.failure_status(error)


def _check_state(connection: Connection, record: Record) -> None:
    state = states.of(record, states.task_of(connection, record.id))
    if state.status == "paused":
        raise FailedPrecondition(f'container "{names.of(record)}" is paused: unpause it first')
    if not state.alive:
        raise FailedPrecondition(f'container "{names.of(record)}" does not run: start it first')


def _process(
    args: argparse.Namespace, connection: Connection, record: containers_pb2.Container
) -> dict[str, Any]:
    """The container's own process, with what the command line says otherwise."""
    process: dict[str, Any] = containers.spec_of(record)["process"]
    process["args"] = args.command
    process["terminal"] = args.tty
    if args.tty and os.isatty(0):
        width, height = window_size(1 if os.isatty(1) else 0)
        process["consoleSize"] = {"height": height, "width": width}
    if args.workdir:
        process["cwd"] = args.workdir
    env = dict(entry.partition("=")[::2] for entry in process.get("env", ()))
    if args.user is not None:
        before = process["user"]
        own = _user(str(before["uid"]), connection, record)
        user = _user(args.user, connection, record)
        process["user"] = {"uid": user.uid, "gid": user.gid}
        if user.additional_gids or before.get("additionalGids"):
            groups = dict.fromkeys([user.gid, *user.additional_gids])
            process["user"]["additionalGids"] = list(groups)
        if env.get("HOME") == own.home:
            env["HOME"] = user.home
    if args.tty:
        env.setdefault("TERM", "xterm")
    lines = [line for path in args.env_file for line in lines_of(path)]
    env.update(environment([*lines, *args.env]))
    if args.privileged:
        from orlop.client.creating import grantable_capabilities

        process["capabilities"] = dict.fromkeys(_SETS, grantable_capabilities())
        process.pop("apparmorProfile", None)
    process["env"] = [f"{key}={value}" for key, value in env.items()]
    return process


def _user(name: str, connection: Connection, record: containers_pb2.Container) -> User:
    from orlop.client.rootfs import read_texts_of
    from orlop.oci import users

    request = tasks_pb2.GetRequest(container_id=record.id)
    pid = connection.tasks.get(request).process.pid
    texts = read_texts_of(pid, ["/etc/passwd", "/etc/group"])
    return users.resolve(name, texts["/etc/passwd"], texts["/etc/group"])


def _exec(
    connection: Connection, container: str, exec_id: str, process: AnyMessage, streams: Streams
) -> None:
    connection.tasks.exec(
        tasks_pb2.ExecProcessRequest(
            container_id=container,
            exec_id=exec_id,
            spec=process,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
        )
    )


def _attached(
    args: argparse.Namespace,
    connection: Connection,
    record: Record,
    exec_id: str,
    process: AnyMessage,
) -> int:
    with ExitStack() as stack:
        channel = _connected(stack, args, connection, record, exec_id, process)
        joining = joined_by(args, connection, record, channel, exec_id)
        try:
            session = stack.enter_context(joining)
            session.start()
            status = session.run()
        except Left as left:
            return farewell(left)
        except BaseException:
            _delete(connection, record.id, exec_id)
            raise
    _delete(connection, record.id, exec_id)
    return status


def _connected(
    stack: ExitStack,
    args: argparse.Namespace,
    connection: Connection,
    record: Record,
    exec_id: str,
    process: AnyMessage,
) -> Channel:
    """Make the exec; our ends of its streams, which the stack closes."""
    if attach.supports(connection, record.runtime.name):
        streams = attach.unlogged(stdin=args.interactive, terminal=args.tty)
        _exec(connection, record.id, exec_id, process, streams)
        found = stack.enter_context(closing(attach.attach(connection, record, exec_id)))
        found.takes_input = args.interactive
        return found
    from orlop.client.fifos import Fifos

    fifos = stack.enter_context(
        Fifos(connection.directory / "fifo", exec_id, stdin=args.interactive, terminal=args.tty)
    )
    fifos.end_input = lambda: containers.close_stdin(connection, record.id, exec_id)
    _exec(connection, record.id, exec_id, process, fifos.streams)
    return fifos


def _delete(connection: Connection, container: str, exec_id: str) -> None:
    """Forget an exec, whose status is known; it goes with its container otherwise."""
    with suppress(NotFound, Unavailable):
        connection.tasks.delete_process(
            tasks_pb2.DeleteProcessRequest(container_id=container, exec_id=exec_id)
        )
