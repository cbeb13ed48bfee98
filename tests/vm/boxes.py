"""Containers made straight from a runtime spec: no image, no command line, little to emulate."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from orlop.client import Connection
from orlop.errors import NotFound
from orlop.wire import cgroups_v2_pb2
from orlop.wire.events_pb2 import TaskOOM
from orlop.wire.runc_pb2 import Options
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.services.events_pb2 import SubscribeRequest
from orlop.wire.types_pb2 import Mount
from tests.daemon_fixture import Orlopd
from tests.glutton import EAT
from tests.integration.shim.harness import busybox_rootfs, runtime_spec
from tests.patience import patient

CGROUPS = Path("/sys/fs/cgroup")
_SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
_RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"

Edit = Callable[[dict[str, Any]], None]


@dataclass
class Box:
    """A container with its task, which is deleted with the context that made it."""

    id: str
    pid: int
    connection: Connection
    output_file: Path

    @property
    def cgroup(self) -> Path:
        line = Path(f"/proc/{self.pid}/cgroup").read_text().strip()
        return CGROUPS / line.removeprefix("0::/")

    def limit(self, file: str) -> str:
        return (self.cgroup / file).read_text().strip()

    def start(self) -> None:
        self.connection.tasks.start(tasks_pb2.StartRequest(container_id=self.id))

    def wait(self) -> int:
        answer = self.connection.tasks.wait(tasks_pb2.WaitRequest(container_id=self.id))
        return int(answer.exit_status)

    def output(self) -> str:
        """What it printed, once it is over."""
        self.wait()
        return self.output_file.read_text()

    def update(self, **resources: object) -> None:
        """Change limits; `resources` are fields of the runtime spec's LinuxResources."""
        packed = AnyMessage(type_url=_RESOURCES, value=json.dumps(resources).encode())
        self.connection.tasks.update(
            tasks_pb2.UpdateTaskRequest(container_id=self.id, resources=packed)
        )

    def metrics(self) -> cgroups_v2_pb2.Metrics:
        answer = self.connection.tasks.metrics(tasks_pb2.MetricsRequest(filters=[f"id=={self.id}"]))
        (metric,) = answer.metrics
        assert metric.data.type_url.endswith("io.containerd.cgroups.v2.Metrics")
        return cgroups_v2_pb2.Metrics.FromString(metric.data.value)

    def status(self) -> str:
        answer = self.connection.tasks.get(tasks_pb2.GetRequest(container_id=self.id))
        return str(type(answer.process).DESCRIPTOR.fields_by_name["status"].enum_type
                   .values_by_number[answer.process.status].name)  # fmt: skip


class Boxes:
    """Makes containers on one busybox root in one daemon, each below the daemon's namespace."""

    def __init__(self, daemon: Orlopd) -> None:
        self.daemon = daemon
        self.rootfs = daemon.folder / "rootfs"
        busybox_rootfs(self.rootfs)
        daemon.folder.chmod(0o711)  # for the root of a user namespace
        self._number = 0

    def cgroups(self) -> list[str]:
        """The cgroups of any, from which systemd and runtimes are removing some."""
        return [name for _, names, _ in os.walk(CGROUPS) for name in names if "box" in name]

    @contextmanager
    def starved(self, make: Make) -> Iterator[Box]:
        """A container of `make` one of whose processes ran out of memory, as an event told."""
        seen: list[str] = []
        with self.daemon.connect() as watching:
            filters = ['topic=="/tasks/oom"']
            events = watching.events.subscribe(SubscribeRequest(filters=filters))
            thread = threading.Thread(target=_note_victim, args=(iter(events), seen))
            thread.start()
            hog = f"sleep 1; {EAT}; sleep 1000"
            with make("sh", "-c", hog, resources={"memory": {"limit": 16 << 20}}) as box:
                thread.join(patient(20))
                assert seen == [box.id]
                yield box

    @contextmanager
    def box(
        self,
        *args: str,
        options: Message | None = None,
        edit: Edit = lambda spec: None,
        start: bool = True,
        cgroups_path: str = "",
        **linux: Any,
    ) -> Iterator[Box]:
        """A container that runs `args`; `edit` changes its spec, `linux` is part of that."""
        self._number += 1
        name = f"box{self._number}"
        spec = runtime_spec(args or ("sleep", "1000"), name, **linux)
        spec["linux"]["cgroupsPath"] = (
            cgroups_path.format(id=name) or f"/{self.daemon.namespace}/{name}"
        )
        edit(spec)
        with ExitStack() as stack:
            connection = stack.enter_context(self.daemon.connect())
            packed = AnyMessage(type_url=_SPEC, value=json.dumps(spec).encode())
            record = containers_pb2.Container(
                id=name, spec=packed, runtime={"name": "io.containerd.runc.v2"}
            )
            if options is not None:
                record.runtime.options.Pack(options, type_url_prefix="")
            connection.containers.create(containers_pb2.CreateContainerRequest(container=record))
            stack.callback(_delete_record, self.daemon, name)
            output = self.daemon.folder / f"{name}.out"
            request = tasks_pb2.CreateTaskRequest(
                container_id=name,
                rootfs=[Mount(type="bind", source=str(self.rootfs), options=["rbind", "ro"])],
                stdout=f"file://{output}",
                stderr=f"file://{output}",
            )
            if options is not None:
                request.options.CopyFrom(record.runtime.options)
            made = Box(name, connection.tasks.create(request).pid, connection, output)
            stack.callback(_delete_task, made)
            if start:
                made.start()
                self.daemon.wait_for(lambda: self._has_executed(made))
            yield made

    def _has_executed(self, box: Box) -> bool:
        """Whether it is its own program by now, or over: a start is answered a moment before."""
        try:
            return Path(f"/proc/{box.pid}/exe").samefile(self.rootfs / "bin/busybox")
        except OSError:
            return True


Make = Callable[..., AbstractContextManager[Box]]
"""Makes a container, as `Boxes.box` does."""


def options(**fields: Any) -> Options:
    """Options of the runtime, containerd's `runc.v1.Options`."""
    return Options(**fields)


def _note_victim(events: Iterator[Any], seen: list[str]) -> None:
    seen.append(TaskOOM.FromString(next(events).event.value).container_id)


def _delete_task(made: Box) -> None:
    with suppress(NotFound):  # it is over
        made.connection.tasks.kill(tasks_pb2.KillRequest(container_id=made.id, signal=9, all=True))
    made.wait()
    made.connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=made.id))


def _delete_record(daemon: Orlopd, name: str) -> None:
    with daemon.connect() as connection:  # the first one may have ended with its daemon
        connection.containers.delete(containers_pb2.DeleteContainerRequest(id=name))
