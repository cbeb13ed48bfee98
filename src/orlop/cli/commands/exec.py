"""`orlop exec`: run a command in a running container."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.cli.options import environment
from orlop.cli.session import Session
from orlop.client import Connection, containers
from orlop.client.rootfs import read_texts_of
from orlop.client.stdio import Fifos, Streams
from orlop.errors import OrlopError
from orlop.oci import users
from orlop.wire.services import containers_pb2, tasks_pb2

FAILURE = 125


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="leave it running")
    add("-i", "--interactive", action="store_true", help="connect our standard input")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="set a variable")
    add("-w", "--workdir", help="working directory")
    add("-u", "--user", metavar="USER[:GROUP]", help="names or numbers")
    add("container")
    add("command", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace, connection: Connection) -> int:
    if not args.command:
        print("orlop: exec: name a command to run", file=sys.stderr)
        return 2
    record = containers.get(connection, args.container)
    process = AnyMessage(
        type_url=containers.PROCESS_TYPE,
        value=json.dumps(_process(args, connection, record)).encode(),
    )
    exec_id = f"exec-{secrets.token_hex(6)}"
    try:
        if args.detach:
            _exec(connection, record.id, exec_id, process, Streams(terminal=args.tty))
            connection.tasks.start(tasks_pb2.StartRequest(container_id=record.id, exec_id=exec_id))
            return 0
        return _attached(args, connection, record.id, exec_id, process)
    except OrlopError as error:
        print(f"orlop: {error}", file=sys.stderr)
        return containers.failure_status(error)


def _process(
    args: argparse.Namespace, connection: Connection, record: containers_pb2.Container
) -> dict[str, Any]:
    """The container's own process, with what the command line says otherwise."""
    process: dict[str, Any] = containers.spec_of(record)["process"]
    process["args"] = args.command
    process["terminal"] = args.tty
    if args.workdir:
        process["cwd"] = args.workdir
    if args.user is not None:
        user = _user(args.user, connection, record)
        process["user"] = {"uid": user.uid, "gid": user.gid}
        if user.additional_gids:
            process["user"]["additionalGids"] = list(user.additional_gids)
    env = dict(entry.partition("=")[::2] for entry in process.get("env", ()))
    if args.tty:
        env.setdefault("TERM", "xterm")
    env.update(environment(args.env))
    process["env"] = [f"{key}={value}" for key, value in env.items()]
    return process


def _user(name: str, connection: Connection, record: containers_pb2.Container) -> users.User:
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
    container: str,
    exec_id: str,
    process: AnyMessage,
) -> int:
    folder = connection.directory / "fifo"
    with Fifos(folder, exec_id, stdin=args.interactive, terminal=args.tty) as fifos:
        _exec(connection, container, exec_id, process, fifos.streams)
        session = Session(connection, container, fifos, exec_id=exec_id)
        try:
            session.start()
            return session.run()
        finally:
            session.close()
            connection.tasks.delete_process(
                tasks_pb2.DeleteProcessRequest(container_id=container, exec_id=exec_id)
            )
