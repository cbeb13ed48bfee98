"""Share a container's streams with other clients: each gets all output from when it attaches.

orlop's shim serves a socket for it, if the container was made so (`LABEL`). What another shim runs
has a log at most: that is followed then, and takes no input.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from orlop.client import log_files
from orlop.client.connection import Connection
from orlop.client.containers import spec_of
from orlop.client.stdio import Streams
from orlop.errors import FailedPrecondition, OrlopError
from orlop.wire.services import containers_pb2

LABEL = "orlop/attach"
"""On a container whose output clients share; the value "stdin" is for its input as well."""
OUTPUT, STDIN = "output", "stdin"
_PLUGIN = "io.containerd.runtime.v2", "task"
_CHUNK = 64 * 1024
_IN = b"\0"
_STREAMS = {"stdout": b"\1", "stderr": b"\2"}


class Attachment:
    """One client's part of a process's streams: a `Channel`."""

    linger = 5.0
    shared = True

    def __init__(self, connection: socket.socket, *, takes_input: bool) -> None:
        self.takes_input = takes_input
        self._socket = connection
        connection.setblocking(False)
        self._room = connection.dup()  # polled by itself, for room

    @property
    def outputs(self) -> Sequence[int]:
        return (self._socket.fileno(),)

    @property
    def input(self) -> int:
        return self._room.fileno()

    def receive(self, fd: int) -> tuple[int, bytes]:
        del fd
        try:
            packet = self._socket.recv(_CHUNK + 1)
        except ConnectionError:
            # It went with input unread, which is told once, before what it had sent until then.
            packet = self._socket.recv(_CHUNK + 1)
        return (packet[0], packet[1:]) if packet else (1, b"")

    def send(self, data: bytes) -> int:
        part = data[:_CHUNK]
        self._socket.sendmsg([_IN, part])
        return len(part)

    def close(self) -> None:
        self._socket.close()
        self._room.close()


def supports(connection: Connection, runtime: str) -> bool:
    """Whether a runtime's shim lets clients share streams."""
    return runtime in connection.exports(*_PLUGIN).get("attach-runtimes", "").split(",")


def streams(container: containers_pb2.Container) -> Streams:
    """What a task of this container is to be given for its streams."""
    uri = container.labels.get(log_files.LABEL, "")
    shared = container.labels.get(LABEL)
    if shared:
        uri = f"attach+{uri}" if uri else "attach:"
    terminal = bool(spec_of(container)["process"].get("terminal"))
    stdin = "attach:" if shared == STDIN else ""
    return Streams(stdin, uri, "" if terminal else uri, terminal)


def unlogged(*, stdin: bool, terminal: bool) -> Streams:
    """Shared streams that are kept nowhere, as of an exec."""
    return Streams("attach:" if stdin else "", "attach:", "" if terminal else "attach:", terminal)


def attach(
    connection: Connection, container: containers_pb2.Container, exec_id: str = ""
) -> Attachment:
    """Attach to the task of a container, or an exec of it, that is there already.

    Raises FailedPrecondition where nothing of its output can be had.
    """
    takes_input = bool(exec_id) or container.labels.get(LABEL) == STDIN
    name = f"attach-{exec_id}.sock" if exec_id else "attach.sock"
    bundle = Path(
        connection.exports(*_PLUGIN).get("bundles", ""), connection.namespace, container.id
    )
    found = _connect(bundle / name)
    if found is not None:
        return Attachment(found, takes_input=takes_input)
    if container.labels.get(log_files.LABEL) and not exec_id:
        return Attachment(_follow_log(connection, container), takes_input=False)
    raise FailedPrecondition(
        f'container "{container.id}": its output is with the client that started it'
    )


def _connect(path: Path) -> socket.socket | None:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of /proc: a socket's path holds 107 bytes only.
            made.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except OSError:
        made.close()
        return None
    return made


def _follow_log(connection: Connection, container: containers_pb2.Container) -> socket.socket:
    """The log from now on, as packets like the shim's."""
    from orlop.client import logs

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def copy() -> None:
        with theirs:
            try:
                wanted = logs.Wanted(tail=0, follow=True)
                for batch in logs.read(connection, container, wanted, theirs.fileno()):
                    for entry in batch:
                        for start in range(0, len(entry.data), _CHUNK):
                            part = entry.data[start : start + _CHUNK]
                            theirs.sendmsg([_STREAMS[entry.stream], part])
            except (OSError, OrlopError):
                pass  # nobody listens any more, or there is no log any more

    threading.Thread(target=copy, name="orlop-follow", daemon=True).start()
    return ours
