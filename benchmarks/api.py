"""Containers by the API alone: no client's start hides what a daemon does."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from google.protobuf.any_pb2 import Any

from benchmarks.rivals import NAMESPACE, Rival
from orlop.client import Connection, containers, images
from orlop.client.stdio import Streams
from orlop.errors import NotFound
from orlop.oci import spec as runtime_spec
from orlop.rpc.grpc.client import GrpcChannel
from orlop.wire.services import containers_pb2, content_pb2, leases_pb2, snapshots_pb2, tasks_pb2
from orlop.wire.types_pb2 import Mount

_NOWHERE = Streams()
_NO_LABELS: Mapping[str, str] = {}


class GrpcConnection(Connection):
    """The library's connection, over gRPC: it works with both."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address, self.namespace = address, namespace
        self._lease, self._owner = "", True
        self._channel: GrpcChannel = GrpcChannel(address)  # type: ignore[assignment]


class Api:
    """Containers from `image`, which is unpacked already, on a daemon. Close it."""

    def __init__(self, rival: Rival, image: str) -> None:
        self.connection = GrpcConnection(rival.address, NAMESPACE)
        self._image = images.view(self.connection, images.get(self.connection, image))

    def close(self) -> None:
        self.connection.close()

    def create(self, name: str, args: Sequence[str], streams: Streams = _NOWHERE) -> int:
        """A container and its task, not started; the pid of its first process."""
        lease = self.connection.leases.create(leases_pb2.CreateRequest()).lease.id
        try:
            mounts = self._create_record(self.connection.with_lease(lease), name, args)
        finally:
            self.connection.leases.delete(leases_pb2.DeleteRequest(id=lease))
        return containers.create_task(self.connection, name, mounts, streams)

    def _create_record(
        self, connection: Connection, name: str, args: Sequence[str]
    ) -> Sequence[Mount]:
        snapshotter = self._image.snapshotter
        prepared = connection.snapshots.prepare(
            snapshots_pb2.PrepareSnapshotRequest(
                snapshotter=snapshotter, key=name, parent=self._image.chain_id
            )
        )
        document = runtime_spec.build(
            runtime_spec.ContainerSpec(
                args=args, env=self._env(), seccomp=False, cgroups_path=f"/{NAMESPACE}/{name}"
            )
        )
        connection.containers.create(
            containers_pb2.CreateContainerRequest(
                container=containers_pb2.Container(
                    id=name,
                    runtime=containers_pb2.Container.Runtime(name=containers.RUNTIME),
                    spec=Any(type_url=containers.SPEC_TYPE, value=json.dumps(document).encode()),
                    snapshotter=snapshotter,
                    snapshot_key=name,
                )
            )
        )
        found: Sequence[Mount] = prepared.mounts
        return found

    def _env(self) -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self._image.config.get("Env") or ())

    def start(self, name: str) -> None:
        self.connection.tasks.start(tasks_pb2.StartRequest(container_id=name))

    def run(self, name: str, args: Sequence[str]) -> None:
        """Run a container to its end, and leave nothing of it."""
        self.create(name, args)
        self.start(name)
        containers.wait(self.connection, name)
        self.remove(name)

    def remove(self, name: str) -> None:
        """Of a container that has ended."""
        self.connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=name))
        self.connection.containers.delete(containers_pb2.DeleteContainerRequest(id=name))
        containers.remove_snapshot(self.connection, self._image.snapshotter, name)

    def kill(self, name: str) -> None:
        """End and remove a running container."""
        with suppress(NotFound):
            containers.send_signal(self.connection, name, signal.SIGKILL)
        containers.wait(self.connection, name)
        self.remove(name)

    def exec(self, name: str, exec_id: str, args: Sequence[str]) -> None:
        """Run a process in a running container to its end."""
        process = {
            "args": list(args),
            "cwd": "/",
            "env": [f"{k}={v}" for k, v in self._env().items()],
        }
        tasks = self.connection.tasks
        tasks.exec(
            tasks_pb2.ExecProcessRequest(
                container_id=name,
                exec_id=exec_id,
                spec=Any(type_url=containers.PROCESS_TYPE, value=json.dumps(process).encode()),
            )
        )
        tasks.start(tasks_pb2.StartRequest(container_id=name, exec_id=exec_id))
        tasks.wait(tasks_pb2.WaitRequest(container_id=name, exec_id=exec_id))
        tasks.delete_process(tasks_pb2.DeleteProcessRequest(container_id=name, exec_id=exec_id))


def put_blob(connection: Connection, text: str, labels: Mapping[str, str] = _NO_LABELS) -> str:
    """Write a small blob, in one message; its digest."""
    data = text.encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    request = content_pb2.WriteContentRequest(
        action=content_pb2.WriteAction.COMMIT, ref=text, data=data, total=len(data),
        expected=digest, labels=labels,
    )  # fmt: skip
    for _ in connection.content.write(iter([request])):
        pass
    return digest


def at_once(count: int, action: Callable[[str], object], names: Iterable[str]) -> None:
    """Do it for all names, `count` at a time; raises what any of them raises."""
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(action, name) for name in names]:
            done.result()
