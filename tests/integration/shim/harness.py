"""Drives a real shim over its socket, and plays the daemon that its events go to."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from orlop import errors
from orlop.fork.client import ForkServer
from orlop.rpc.table import snake_case
from orlop.shim.keeper import HAND
from orlop.shim.main import PATIENCE
from orlop.sys.process import mark
from orlop.wire import events_pb2
from orlop.wire import task_v2_pb2 as task
from orlop.wire.services.events_ttrpc_pb2 import ForwardRequest
from orlop.wire.ttrpc_pb2 import Request, Response
from tests.patience import patient

HEADER = struct.Struct(">IIBB")
REQUEST, RESPONSE = 1, 2
NAMESPACE = f"shim-test-{os.getpid()}"
"""Its own in each run: a run that was killed may have left something in its namespace."""
IMPATIENCE = 0.002
"""Seconds after which the hand of a restless shim goes."""
RUNC_ROOT = f"/run/containerd/runc/{NAMESPACE}"


def frame(stream: int, kind: int, payload: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(len(payload), stream, kind, flags) + payload


def read_frame(connection: socket.socket) -> tuple[int, int, bytes] | None:
    header = _read_exactly(connection, HEADER.size)
    if header is None:
        return None
    size, stream, kind, _ = HEADER.unpack(header)
    payload = _read_exactly(connection, size)
    return None if payload is None else (stream, kind, payload)


def _read_exactly(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            chunk = connection.recv(size - len(data))
        except OSError:
            return None
        if not chunk:
            return None
        data += chunk
    return data


class Client:
    """A ttrpc client whose calls are methods in snake case: `client.start(id="x")`."""

    def __init__(self, path: Path, service: str = "containerd.task.v3.Task") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._service = service
        self._lock = threading.Lock()
        self._stream = -1
        self._pending: dict[int, Future[bytes]] = {}
        self.talks_nonsense = False
        """Whether answers may come to what was never asked."""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        rpcs = task.DESCRIPTOR.services_by_name["Task"].methods
        self._rpcs = {snake_case(rpc.name): rpc for rpc in rpcs}

    def close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join()
        self.socket.close()

    def begin(self, name: str, **fields: Any) -> Future[bytes]:
        """Send a call and give the promise of its answer's payload."""
        rpc = self._rpcs[name]
        message = getattr(task, rpc.input_type.name)(**fields)
        return self.send(rpc.name, message.SerializeToString())

    def send(self, method: str, payload: bytes, timeout: float = 0) -> Future[bytes]:
        request = Request(
            service=self._service, method=method, payload=payload, timeout_nano=int(timeout * 1e9)
        )
        future: Future[bytes] = Future()
        with self._lock:
            self._stream += 2
            self._pending[self._stream] = future
            self.socket.sendall(frame(self._stream, REQUEST, request.SerializeToString()))
        return future

    def __getattr__(self, name: str) -> Callable[..., Any]:
        rpc = self._rpcs[name]

        def call(**fields: Any) -> Any:
            payload = self.begin(name, **fields).result(patient(120))
            output = rpc.output_type.name
            return Empty() if output == "Empty" else getattr(task, output).FromString(payload)

        return call

    def _read(self) -> None:
        while (got := read_frame(self.socket)) is not None:
            stream, _, payload = got
            response = Response.FromString(payload)
            if self.talks_nonsense and stream not in self._pending:
                continue
            future = self._pending.pop(stream)
            if response.status.code:
                error = errors.from_code(response.status.code, response.status.message)
                future.set_exception(error)
            else:
                future.set_result(response.payload)
        for future in self._pending.values():
            future.set_exception(ConnectionError("closed"))


class Daemon:
    """The daemon's event socket; can go away and come back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.envelopes: list[Any] = []
        self._arrived = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._run(self._accept, self._listener)

    def stop(self) -> None:
        if self._listener is None:
            return
        for one in (self._listener, *self._connections):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._connections):
            one.close()
        self.path.unlink()
        self._listener, self._threads, self._connections = None, [], []

    def wait_for(self, count: int, timeout: float = 15) -> list[tuple[str, Any]]:
        """The first events as (topic without /tasks/, message), at least `count` of them."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.envelopes) >= count, patient(timeout))
            return [self._decode(envelope) for envelope in self.envelopes]

    def topics(self, count: int, timeout: float = 15) -> list[str]:
        return [topic for topic, _ in self.wait_for(count, timeout)]

    @staticmethod
    def _decode(envelope: Any) -> tuple[str, Any]:
        assert envelope.namespace == NAMESPACE
        kind = envelope.event.type_url.removeprefix("containerd.events.")
        message = getattr(events_pb2, kind).FromString(envelope.event.value)
        return envelope.topic.removeprefix("/tasks/"), message

    def _run(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        while (got := read_frame(connection)) is not None:
            stream, _, payload = got
            request = Request.FromString(payload)
            assert request.method == "Forward"
            connection.sendall(frame(stream, RESPONSE, Response().SerializeToString()))
            with self._arrived:
                self.envelopes.append(ForwardRequest.FromString(request.payload).envelope)
                self._arrived.notify_all()


def busybox_rootfs(folder: Path) -> Path:
    """A root with a static busybox and its usual names."""
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (folder / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    for name in (
        "sh",
        "true",
        "false",
        "echo",
        "cat",
        "sleep",
        "kill",
        "stty",
        "seq",
        "head",
        "dd",
    ):
        (folder / "bin" / name).symlink_to("busybox")
    return folder


class Shim:
    """One shim started through the fork server, with helpers for containers in it."""

    def __init__(
        self,
        server: ForkServer,
        folder: Path,
        rootfs: Path,
        *,
        daemon: bool = True,
        patience: float = PATIENCE,
    ) -> None:
        self.folder = folder
        self.rootfs = rootfs
        self.daemon = Daemon(folder / "events.sock")
        if daemon:
            self.daemon.start()
        self.path = folder / "shim.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        args = {
            "namespace": NAMESPACE,
            "id": "first",
            "bundle": str(folder),
            "ttrpc_address": str(self.daemon.path),
            "debug": True,
            "patience": patience,
        }
        fd = self.listener.fileno()
        self.pid = server.spawn("orlop.shim.main:run", args, [fd], name="orlop-shim")
        self._mark = mark(self.pid)
        self.listener.close()
        self._clients: list[Client] = []
        self.client = self.connect()

    def connect(self, service: str = "containerd.task.v3.Task") -> Client:
        client = Client(self.path, service)
        self._clients.append(client)
        return client

    def bundle(self, id: str, args: Sequence[str], **changes: Any) -> Path:
        """Write a bundle for a container; `changes` go to `runtime_spec`."""
        bundle = self.folder / id
        (bundle / "rootfs").mkdir(parents=True)
        document = runtime_spec(args, id, **changes)
        (bundle / "config.json").write_text(json.dumps(document))
        return bundle

    def create(
        self,
        id: str,
        args: Sequence[str],
        *,
        terminal: bool = False,
        stdin: str = "",
        stdout: str = "",
        stderr: str = "",
        options: AnyMessage | None = None,
        **changes: Any,
    ) -> int:
        """Create a container on the busybox root, mounted by the shim; its pid."""
        bundle = self.bundle(id, args, terminal=terminal, **changes)
        mount = {"type": "bind", "source": str(self.rootfs), "options": ["rbind", "ro"]}
        return int(
            self.client.create(
                id=id,
                bundle=str(bundle),
                rootfs=[mount],
                terminal=terminal,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                options=options,
            ).pid
        )

    def exec(self, id: str, exec_id: str, args: Sequence[str], **fields: Any) -> None:
        process = {
            "args": list(args),
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        }
        value = json.dumps(process).encode()
        url = "types.containerd.io/opencontainers/runtime-spec/1/Process"
        self.client.exec(id=id, exec_id=exec_id, spec={"type_url": url, "value": value}, **fields)

    def fifo(self, name: str) -> str:
        path = str(self.folder / name)
        os.mkfifo(path, 0o700)
        return path

    def finish(self, id: str) -> Any:
        """Kill, wait for and delete a container."""
        waiting = self.client.begin("wait", id=id)
        try:
            self.client.kill(id=id, signal=9, all=True)
        except errors.NotFound:
            pass
        waiting.result(60)
        return self.client.delete(id=id)

    @property
    def hand(self) -> int:
        """The pid of the child that works, 0 while the shim sleeps."""
        return next((pid for pid in _children(self.pid) if name_of(pid) == HAND), 0)

    @property
    def helpers(self) -> list[int]:
        """The processes that it has started for itself: loggers, and runtimes that are at work."""
        return [pid for pid in (*_children(self.pid), *_children(self.hand)) if pid != self.hand]

    def fall_asleep(self) -> None:
        """Wait until the hand has gone."""
        wait_until(lambda: not self.hand)

    def shutdown(self) -> None:
        self.client.shutdown(id="first", now=True)
        wait_until(lambda: not process_exists(self.pid))

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if mark(self.pid) == self._mark:
            os.kill(self.pid, 9)
            wait_until(lambda: not process_exists(self.pid))
        self.daemon.stop()


def runtime_spec(
    args: Sequence[str],
    id: str,
    *,
    terminal: bool = False,
    namespaces: Sequence[str] = ("pid", "ipc", "uts", "mount", "network"),
    **linux: Any,
) -> dict[str, Any]:
    """A runtime spec with its own namespaces and its own cgroup, /NAMESPACE/ID."""
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                name: ["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
                for name in ("bounding", "permitted", "effective")
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
        ],
        "linux": {
            "cgroupsPath": f"/{NAMESPACE}/{id}",
            "namespaces": [{"type": name} for name in namespaces],
            **linux,
        },
    }


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def name_of(pid: int) -> str:
    """What `ps` shows of a process, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def process_exists(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return bool(mark(pid))


def wait_until(condition: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + patient(timeout)
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def leftovers(folder: Path) -> Mapping[str, Sequence[str]]:
    """What containers of a test in `folder` have left on the host."""
    mounts = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if f"{folder}/" in line
    ]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}/*/")]
    return {"mounts": mounts, "cgroups": cgroups, "runc": sorted(names(Path(RUNC_ROOT)))}


def names(folder: Path) -> set[str]:
    """What is in a folder; nothing if there is none."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
