"""Sandboxes that a shim runs, through a real orlopd: store, controller, containers in one."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import stat
import typing
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any

from orlop.client import Connection, containers, creating, images, leases
from orlop.client.stdio import Streams
from orlop.errors import AlreadyExists, InvalidArgument, NotFound, OrlopError, Unavailable
from orlop.sys.process import mark
from orlop.wire.services import containers_pb2, sandbox_pb2, tasks_pb2
from orlop.wire.types_pb2 import Sandbox
from tests.daemon_fixture import Orlopd
from tests.killing import kill

pytestmark = pytest.mark.root

_PIDFD_GETFD = 438
RUNTIME = Sandbox.Runtime(name="io.containerd.runc.v2")
POD: dict[str, typing.Any] = {"sandbox_id": "pod", "sandboxer": "shim"}


def _pod() -> Sandbox:
    return Sandbox(sandbox_id="pod", runtime=RUNTIME, sandboxer="shim", labels={"app": "web"})


def _create(connection: Connection) -> int:
    """A sandbox, created and started; the pid of its shim."""
    connection.sandboxes.create(sandbox_pb2.StoreCreateRequest(sandbox=_pod()))
    control = connection.sandbox_controller
    control.create(sandbox_pb2.ControllerCreateRequest(**POD, sandbox=_pod()))
    started = control.start(sandbox_pb2.ControllerStartRequest(**POD))
    assert started.created_at.seconds
    return int(started.pid)


def _state(connection: Connection) -> str:
    request = sandbox_pb2.ControllerStatusRequest(**POD)
    try:
        return str(connection.sandbox_controller.status(request).state)
    except Unavailable:
        return "lost"  # its shim has just died


def _run(client: Connection, image: str, name: str) -> int:
    """A container in the sandbox; its pid."""
    with leases.held(client) as connection:
        return _run_held(connection, image, name)


def _run_held(connection: Connection, image: str, name: str) -> int:
    view = images.view(connection, images.get(connection, image))
    record, mounts = creating.create(
        connection, creating.Wanted(image=view, id=f"{name}-plain", command=["sleep", "1000"])
    )
    leases.hold(connection, f"snapshots/{record.snapshotter}", record.snapshot_key)
    connection.containers.delete(containers_pb2.DeleteContainerRequest(id=record.id))
    record.id, record.sandbox = name, "pod"
    spec = json.loads(record.spec.value)
    spec["linux"]["cgroupsPath"] = f"/{connection.namespace}/{name}"
    record.spec.CopyFrom(Any(type_url=record.spec.type_url, value=json.dumps(spec).encode()))
    connection.containers.create(containers_pb2.CreateContainerRequest(container=record))
    pid = containers.create_task(connection, name, mounts, Streams())
    connection.tasks.start(tasks_pb2.StartRequest(container_id=name))
    return pid


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _end(connection: Connection) -> None:
    control = connection.sandbox_controller
    control.stop(sandbox_pb2.ControllerStopRequest(**POD, timeout_secs=1))
    control.shutdown(sandbox_pb2.ControllerShutdownRequest(**POD))
    connection.sandboxes.delete(sandbox_pb2.StoreDeleteRequest(sandbox_id="pod"))


def test_the_life_of_a_sandbox(orlopd: Orlopd, busybox: str) -> None:
    with ThreadPoolExecutor() as pool, orlopd.connect() as connection:
        shim = _create(connection)
        orlopd.wait_for(lambda: Path(f"/proc/{shim}/comm").read_text() == "orlop-shim\n")
        assert _state(connection) == "SANDBOX_READY"
        control = connection.sandbox_controller
        with pytest.raises(AlreadyExists):
            control.create(sandbox_pb2.ControllerCreateRequest(**POD, sandbox=_pod()))
        waiting = pool.submit(control.wait, sandbox_pb2.ControllerWaitRequest(**POD))

        pids = [_run(connection, busybox, name) for name in ("one", "two")]
        assert {_parent(pid) for pid in pids} == {shim}
        for name in ("one", "two"):
            containers.remove(connection, containers.get(connection, name), force=True)
        assert Path(f"/proc/{shim}").exists()  # a sandbox outlives its containers
        assert not waiting.done()

        control.stop(sandbox_pb2.ControllerStopRequest(**POD, timeout_secs=1))
        assert waiting.result(10).exited_at.seconds
        assert _state(connection) == "SANDBOX_NOTREADY"
        _end(connection)
        orlopd.wait_for(lambda: not Path(f"/proc/{shim}").exists())
        assert _state(connection) == ""


def test_it_is_found_again(orlopd: Orlopd, busybox: str) -> None:
    with orlopd.connect() as connection:
        shim = _create(connection)
        first = _run(connection, busybox, "one")
    orlopd.kill9()
    orlopd.start()
    with orlopd.connect() as connection:
        assert _state(connection) == "SANDBOX_READY"
        orlopd.wait_for(lambda: "RUNNING" in orlopd.ctr("tasks", "ls").stdout)
        second = _run(connection, busybox, "two")
        assert {_parent(first), _parent(second)} == {shim}
        for name in ("one", "two"):
            containers.remove(connection, containers.get(connection, name), force=True)
        _end(connection)


def test_its_shim_dies(orlopd: Orlopd, busybox: str) -> None:
    with orlopd.connect() as connection:
        shim = _create(connection)
        container = _run(connection, busybox, "one")
        kill(shim)
        orlopd.wait_for(lambda: _state(connection) == "")
        orlopd.wait_for(lambda: "one" not in orlopd.ctr("tasks", "ls").stdout)
        orlopd.wait_for(lambda: not Path(f"/proc/{container}").exists())
        containers.remove(connection, containers.get(connection, "one"), force=True)
        connection.sandboxes.delete(sandbox_pb2.StoreDeleteRequest(sandbox_id="pod"))


def _listener(shim: int) -> socket.socket:
    """The socket that a shim listens at, shared with it, or with its hand while that works."""
    found: list[socket.socket] = []

    def look() -> bool:
        hands = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
        for pid in (shim, *map(int, hands)):
            with suppress(OSError):  # a hand goes when there is nothing to do
                if not found:
                    found.extend(_listening(pid))
        return bool(found)

    Orlopd.wait_for(look)
    return found[0]


def _listening(pid: int) -> list[socket.socket]:
    """The first socket at which a process listens, shared with it; none or one."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for number in Path(f"/proc/{pid}/fd").iterdir():
            copy = libc.syscall(_PIDFD_GETFD, process, int(number.name), 0)
            if copy < 0:
                continue  # it has just been closed
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                os.close(copy)
                continue
            shared = socket.socket(fileno=copy)
            if shared.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return [shared]
            shared.close()
    finally:
        os.close(process)
    return []


def test_its_shim_dies_slowly(orlopd: Orlopd, busybox: str) -> None:
    """Its socket accepts after it is dead, and breaks off: at any moment of a reconnection."""
    with orlopd.connect() as connection:
        shim = _create(connection)
        container = _run(connection, busybox, "one")
        with _listener(shim) as listener:
            kill(shim)
            orlopd.wait_for(lambda: not mark(shim))
            listener.settimeout(1)
            with suppress(TimeoutError):
                for _ in range(1000):
                    listener.accept()[0].close()
        orlopd.wait_for(lambda: _state(connection) == "")
        orlopd.wait_for(lambda: "one" not in orlopd.ctr("tasks", "ls").stdout)
        orlopd.wait_for(lambda: not Path(f"/proc/{container}").exists())
        containers.remove(connection, containers.get(connection, "one"), force=True)
        connection.sandboxes.delete(sandbox_pb2.StoreDeleteRequest(sandbox_id="pod"))


def test_what_is_refused(orlopd: Orlopd) -> None:
    with orlopd.connect() as connection:
        control = connection.sandbox_controller
        for kind, more in ((InvalidArgument, ""), (NotFound, "podsandbox")):
            with pytest.raises(kind):
                control.start(sandbox_pb2.ControllerStartRequest(sandbox_id="pod", sandboxer=more))
        with pytest.raises(NotFound, match='sandbox "pod"'):
            control.start(sandbox_pb2.ControllerStartRequest(**POD))
        with pytest.raises(InvalidArgument, match="without its runtime"):
            control.create(sandbox_pb2.ControllerCreateRequest(**POD))
        nowhere = Sandbox(sandbox_id="pod", runtime=Sandbox.Runtime(name="io.example.nope.v1"))
        with pytest.raises(OrlopError, match="containerd-shim-nope-v1"):
            control.create(sandbox_pb2.ControllerCreateRequest(**POD, sandbox=nowhere))
        # What is not there is stopped and shut down already.
        control.stop(sandbox_pb2.ControllerStopRequest(**POD))
        control.shutdown(sandbox_pb2.ControllerShutdownRequest(**POD))
