"""An orlopd whose runtime `io.example.strange.v1` is the shim of `tests/strange_shim`."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from orlop.client import Connection
from orlop.errors import OrlopError
from orlop.wire import events_pb2
from orlop.wire.runc_pb2 import Options
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.services.events_pb2 import PublishRequest, SubscribeRequest
from tests.daemon_fixture import Orlopd
from tests.strange_shim.manners import Manners

RUNTIME = "io.example.strange.v1"
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
_HERE = "/tasks/here"
_SOCKETS = Path("/run/containerd/s")


class StrangeOrlopd(Orlopd):
    """Runs containers with the strange shim; `manners` changes what that does from now on."""

    def __init__(self) -> None:
        super().__init__()
        self._manners = self.folder / "manners.json"
        self._shim = self.folder / "containerd-shim-strange-v1"
        self.manners(Manners())
        config = self.folder / "config.toml"
        config.write_text(f'[runtimes]\n"{RUNTIME}" = "{self._shim}"\n')
        self.options = ["--config", str(config)]

    def manners(self, wanted: Manners) -> None:
        """From now on; a shim of another release is another file in its place."""
        wanted.write(self._manners)
        here = Path(__file__).resolve().parents[1]
        command = f'{sys.executable} -m tests.strange_shim {self._manners} "$@"'
        text = f"#!/bin/sh\n# {wanted.says} {wanted.release}\nPYTHONPATH={here} exec {command}\n"
        if not self._shim.exists() or self._shim.read_text() != text:
            new = self._shim.with_suffix(".new")
            new.write_text(text)
            new.chmod(0o755)
            new.rename(self._shim)

    def is_clean(self) -> bool:
        """Whether nothing is there but the daemon itself."""
        found = self.leftovers()
        own = {"orlopd", "orlop-fork", "orlop-spare", "orlop-shim-hand"}  # the spare's hand
        strangers = [each for each in found.pop("processes", []) if each.split()[1] not in own]
        found.pop("sockets", None)
        return not found and not strangers

    def discard(self) -> None:
        """Also the shims' sockets."""
        super().discard()
        for path in _SOCKETS.glob(f"strange-{self.namespace}-*"):
            path.unlink(missing_ok=True)

    def leftovers(self) -> dict[str, list[str]]:
        """Also the shims' sockets, which are outside of its folder."""
        found = super().leftovers()
        sockets = [str(path) for path in _SOCKETS.glob(f"strange-{self.namespace}-*")]
        return {**found, **({"shim sockets": sockets} if sockets else {})}


def container(
    connection: Connection,
    name: str,
    command: Sequence[str] = ("sleep", "1000"),
    *,
    sandbox: str = "",
    annotations: dict[str, str] | None = None,
) -> None:
    """A container's record, for the strange shim."""
    spec = {"ociVersion": "1.0.2", "process": {"args": list(command), "cwd": "/"}}
    if annotations:
        spec["annotations"] = annotations
    options = Any(type_url="containerd.runc.v1.Options", value=Options().SerializeToString())
    record = containers_pb2.Container(
        id=name,
        runtime=containers_pb2.Container.Runtime(name=RUNTIME, options=options),
        spec=Any(type_url=SPEC_TYPE, value=json.dumps(spec).encode()),
        sandbox=sandbox,
    )
    connection.containers.create(containers_pb2.CreateContainerRequest(container=record))


def create(connection: Connection, name: str, timeout: float = 30, **more: object) -> int:
    """Its task, created; the pid."""
    request = tasks_pb2.CreateTaskRequest(container_id=name, **more)  # type: ignore[arg-type]
    return int(connection.tasks.create(request, timeout=timeout).pid)


def run(connection: Connection, name: str, timeout: float = 30) -> int:
    """Its task, created and started; the pid."""
    pid = create(connection, name, timeout)
    connection.tasks.start(tasks_pb2.StartRequest(container_id=name), timeout=timeout)
    return pid


class Heard:
    """The events of the tasks of a daemon, counted by topic and container."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.exits: dict[str, int] = {}

    def take(self, topic: str, event: bytes) -> None:
        kind: type[Message] = {
            "/tasks/create": events_pb2.TaskCreate,
            "/tasks/start": events_pb2.TaskStart,
            "/tasks/delete": events_pb2.TaskDelete,
            "/tasks/exit": events_pb2.TaskExit,
        }.get(topic, events_pb2.TaskOOM)
        try:
            told = kind.FromString(event)
        except DecodeError:
            return
        name = told.container_id  # type: ignore[attr-defined]
        self.counts[topic, name] += 1
        if isinstance(told, events_pb2.TaskExit):
            self.exits[name] = told.exit_status


@contextmanager
def listening(daemon: Orlopd) -> Iterator[Heard]:
    """Hears the events of tasks meanwhile, from the beginning."""
    heard, there = Heard(), threading.Event()
    with daemon.connect() as connection:
        stream = connection.events.subscribe(SubscribeRequest(filters=["topic~=^/tasks/"]))

        def listen() -> None:
            try:
                for envelope in stream:
                    if envelope.topic == _HERE:
                        there.set()
                    elif envelope.namespace == daemon.namespace:
                        heard.take(envelope.topic, envelope.event.value)
            except OrlopError:
                pass  # the connection was closed

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            while not there.wait(0.05):
                assert thread.is_alive()
                connection.events.publish(PublishRequest(topic=_HERE, event=Any(type_url="x")))
            yield heard
        finally:
            stream.close()
            connection.close()
            thread.join()
