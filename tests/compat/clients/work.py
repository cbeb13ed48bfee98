"""What these clients do step by step: write blobs, mount snapshots, run processes."""

from __future__ import annotations

import json
import os
import select
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from orlop.client import Connection
from orlop.client.containers import PROCESS_TYPE, RUNTIME, SPEC_TYPE
from orlop.client.creating import grantable_capabilities
from orlop.client.fifos import Fifos
from orlop.client.rootfs import to_mount
from orlop.errors import AlreadyExists, OrlopError, Unavailable
from orlop.oci.digest import Digest
from orlop.oci.spec import ContainerSpec, build
from orlop.sys.mount import Mount as HostMount
from orlop.sys.mount import mount_all, unmount
from orlop.wire.services import containers_pb2, content_pb2, events_pb2, snapshots_pb2, tasks_pb2
from orlop.wire.types_pb2 import Envelope, Mount
from tests.compat.clients.peer import SNAPSHOTTER
from tests.daemon_fixture import Orlopd
from tests.patience import patient

# Content


class Writer:
    """One write of content, a message at a time, as the Go client does it."""

    def __init__(self, peer: Connection, ref: str, total: int = 0, expected: str = "") -> None:
        self._requests: SimpleQueue[content_pb2.WriteContentRequest | None] = SimpleQueue()
        self._answers = peer.content.write(iter(self._requests.get, None))
        self.status = self._ask(action=content_pb2.STAT, ref=ref, total=total, expected=expected)

    def _ask(self, **fields: Any) -> content_pb2.WriteContentResponse:
        self._requests.put(content_pb2.WriteContentRequest(**fields))
        answer: content_pb2.WriteContentResponse = next(self._answers)
        return answer

    def write(self, data: bytes, offset: int) -> content_pb2.WriteContentResponse:
        return self._ask(action=content_pb2.WRITE, offset=offset, data=data)

    def commit(
        self, total: int, expected: str, labels: Mapping[str, str] | None = None
    ) -> content_pb2.WriteContentResponse:
        return self._ask(
            action=content_pb2.COMMIT, total=total, offset=total, expected=expected, labels=labels
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._answers.close()


def open_writer(peer: Connection, ref: str, total: int = 0, expected: str = "") -> Writer:
    """A writer, once the one before has let go of its ref: clients try again, too."""
    end = time.monotonic() + patient(10)
    while True:
        try:
            return Writer(peer, ref, total, expected)
        except Unavailable:
            assert time.monotonic() < end, f'"{ref}" stays locked'
            time.sleep(0.02)


def put(
    peer: Connection, data: bytes, labels: Mapping[str, str] | None = None, ref: str = ""
) -> str:
    """Have a blob in the store, whoever wrote it; its digest."""
    digest = str(Digest.of(data))
    try:
        with Writer(peer, ref or digest, len(data), digest) as writer:
            writer.write(data, 0)
            writer.commit(len(data), digest, labels)
    except AlreadyExists:
        pass
    return digest


def put_json(peer: Connection, document: object, labels: Mapping[str, str] | None = None) -> str:
    return put(peer, json.dumps(document).encode(), labels)


def read(peer: Connection, digest: str) -> bytes:
    request = content_pb2.ReadContentRequest(digest=digest)
    return b"".join(part.data for part in peer.content.read(request))


def info(peer: Connection, digest: str) -> content_pb2.Info:
    found: content_pb2.Info = peer.content.info(content_pb2.InfoRequest(digest=digest)).info
    return found


# Snapshots


def prepare(
    peer: Connection, key: str, parent: str = "", labels: Mapping[str, str] | None = None
) -> list[Mount]:
    request = snapshots_pb2.PrepareSnapshotRequest(
        snapshotter=SNAPSHOTTER, key=key, parent=parent, labels=labels
    )
    return list(peer.snapshots.prepare(request).mounts)


def view(peer: Connection, key: str, parent: str) -> list[Mount]:
    request = snapshots_pb2.ViewSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, parent=parent)
    return list(peer.snapshots.view(request).mounts)


def commit(peer: Connection, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
    request = snapshots_pb2.CommitSnapshotRequest(
        snapshotter=SNAPSHOTTER, name=name, key=key, labels=labels
    )
    peer.snapshots.commit(request)


def remove(peer: Connection, key: str) -> None:
    peer.snapshots.remove(snapshots_pb2.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=key))


def stat(peer: Connection, key: str) -> snapshots_pb2.Info:
    request = snapshots_pb2.StatSnapshotRequest(snapshotter=SNAPSHOTTER, key=key)
    found: snapshots_pb2.Info = peer.snapshots.stat(request).info
    return found


def host_mounts(mounts: Sequence[Mount]) -> list[HostMount]:
    return [to_mount(each) for each in mounts]


@contextmanager
def mounted(mounts: Sequence[Mount]) -> Iterator[Path]:
    """The files of a snapshot, which is mounted here meanwhile."""
    with tempfile.TemporaryDirectory(prefix="orlop-mounted-") as folder:
        mount_all(host_mounts(mounts), Path(folder))
        try:
            yield Path(folder)
        finally:
            unmount(Path(folder))


# Containers


def spec(namespace: str, id: str, *args: str, **more: Any) -> dict[str, Any]:
    """A runtime spec."""
    wanted = ContainerSpec(
        args=args, env={"PATH": "/bin"}, cgroups_path=f"/{namespace}/{id}", **more
    )
    return build(wanted, available=grantable_capabilities())


def create_container(
    peer: Connection, id: str, document: Mapping[str, Any], **fields: Any
) -> containers_pb2.Container:
    runtime = fields.pop("runtime", containers_pb2.Container.Runtime(name=RUNTIME))
    wanted = containers_pb2.Container(
        id=id,
        runtime=runtime,
        spec=AnyMessage(type_url=SPEC_TYPE, value=json.dumps(document).encode()),
        **fields,
    )
    request = containers_pb2.CreateContainerRequest(container=wanted)
    made: containers_pb2.Container = peer.containers.create(request).container
    return made


def delete_container(peer: Connection, id: str) -> None:
    peer.containers.delete(containers_pb2.DeleteContainerRequest(id=id))


class Process:
    """A container's process, or one more in it, with its streams by fifos."""

    def __init__(
        self,
        engine: Orlopd,
        peer: Connection,
        container: str,
        exec_id: str = "",
        *,
        stdin: bool = False,
        terminal: bool = False,
    ) -> None:
        self._peer = peer
        self._names: dict[str, Any] = {"container_id": container, "exec_id": exec_id}
        self.fifos = Fifos(
            engine.folder / "fifos", exec_id or container, stdin=stdin, terminal=terminal
        )
        self.output = bytearray()
        self._drained = threading.Event()
        self._pool = ThreadPoolExecutor(2)
        self._reader = self._pool.submit(self._read)
        self._waiter: Future[Any] | None = None

    def create(
        self, mounts: Sequence[Mount] = (), options: Message | None = None
    ) -> tasks_pb2.CreateTaskResponse:
        """The container's first process; `options` as they are sent, without a prefix."""
        streams = self.fifos.streams
        packed = None
        if options is not None:
            packed = AnyMessage(
                type_url=options.DESCRIPTOR.full_name, value=options.SerializeToString()
            )
        made: tasks_pb2.CreateTaskResponse = self._peer.tasks.create(
            tasks_pb2.CreateTaskRequest(
                container_id=self._names["container_id"],
                rootfs=mounts,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                terminal=streams.terminal,
                options=packed,
            )
        )
        return made

    def exec(self, process: Mapping[str, Any]) -> None:
        """One more process, as the runtime spec tells it."""
        streams = self.fifos.streams
        self._peer.tasks.exec(
            tasks_pb2.ExecProcessRequest(
                **self._names,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                terminal=streams.terminal,
                spec=AnyMessage(type_url=PROCESS_TYPE, value=json.dumps(process).encode()),
            )
        )

    def start(self) -> int:
        """Wait for the end first, then start, as clients must; the pid."""
        request = tasks_pb2.WaitRequest(**self._names)
        self._waiter = self._pool.submit(self._peer.tasks.wait, request)
        return int(self._peer.tasks.start(tasks_pb2.StartRequest(**self._names)).pid)

    def wait(self) -> int:
        """The exit status."""
        assert self._waiter is not None
        return int(self._waiter.result(patient(20)).exit_status)

    def kill(self, number: int = 9) -> None:
        self._peer.tasks.kill(tasks_pb2.KillRequest(**self._names, signal=number))

    def resize(self, width: int, height: int) -> None:
        self._peer.tasks.resize_pty(
            tasks_pb2.ResizePtyRequest(**self._names, width=width, height=height)
        )

    def type(self, data: bytes) -> None:
        os.write(self.fifos.input, data)

    def close_stdin(self) -> None:
        """The client's end first: it is one of the fifo's writers."""
        os.close(self.fifos.input)
        self.fifos.stdin_fd = None

        self._peer.tasks.close_io(tasks_pb2.CloseIORequest(**self._names, stdin=True))

    def says(self, text: bytes) -> None:
        """Wait until it has printed a text."""
        Orlopd.wait_for(lambda: text in self.output, 20)

    def delete(self) -> int:
        """Delete it; its exit status. After that everything that it printed is in `output`."""
        if self._names["exec_id"]:
            answer = self._peer.tasks.delete_process(tasks_pb2.DeleteProcessRequest(**self._names))
        else:
            request = tasks_pb2.DeleteTaskRequest(container_id=self._names["container_id"])
            answer = self._peer.tasks.delete(request)
        self._finish()
        return int(answer.exit_status)

    def _read(self) -> None:
        poll = select.poll()
        for fd in self.fifos.outputs:
            poll.register(fd, select.POLLIN)
        while True:
            last = self._drained.is_set()
            found = False
            for fd, _ in poll.poll(50):
                try:
                    _, data = self.fifos.receive(fd)
                except BlockingIOError:
                    continue
                self.output += data
                found = found or bool(data)
            if last and not found:
                return
            if not found:
                time.sleep(0.01)  # nobody has its other end open

    def _finish(self) -> None:
        self._drained.set()
        self._reader.result(patient(10))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self.fifos.__exit__(None, None, None)
        self._pool.shutdown(wait=False, cancel_futures=True)


# Events


class Events:
    """What is published from now on, until the end of the context: all, or what has `about` in it.

    An earlier test's container may be told of late.
    """

    _PROBE = "/tasks/probe"

    def __init__(self, peer: Connection, *filters: str, about: str = "") -> None:
        self._peer = peer
        self._about = about.encode()
        self._seen: list[Envelope] = []
        request = events_pb2.SubscribeRequest(filters=filters)
        self._stream = peer.events.subscribe(request)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        Orlopd.wait_for(self._heard)

    def _read(self) -> None:
        with suppress(OrlopError):
            for envelope in self._stream:
                self._seen.append(envelope)

    def _heard(self) -> bool:
        """Whether it listens: an event of our own comes back."""
        event = AnyMessage(type_url="google.protobuf.Empty")
        self._peer.events.publish(events_pb2.PublishRequest(topic=self._PROBE, event=event))
        return bool(self._seen)

    @property
    def listens(self) -> bool:
        """Whether the daemon has not ended the stream."""
        return self._thread.is_alive()

    @property
    def seen(self) -> list[Envelope]:
        return [
            each
            for each in self._seen
            if each.topic != self._PROBE and self._about in each.event.value
        ]

    def topics(self, *prefixes: str) -> list[str]:
        return [each.topic for each in self.seen if each.topic.startswith(prefixes or "/")]

    def until(self, topic: str) -> None:
        Orlopd.wait_for(lambda: topic in self.topics(), 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join(patient(10))
        assert not self._thread.is_alive()
