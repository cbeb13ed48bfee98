"""Sandboxes of a shim that is a program apart and serves the Sandbox service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import Connection
from orlop.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
)
from orlop.sys.process import mark
from orlop.wire.cgroups_v1_pb2 import Metrics
from orlop.wire.events_pb2 import SandboxExit
from orlop.wire.services import sandbox_pb2 as wire
from orlop.wire.services import tasks_pb2
from orlop.wire.services.containers_pb2 import DeleteContainerRequest
from orlop.wire.services.events_pb2 import SubscribeRequest
from orlop.wire.types_pb2 import Mount, Sandbox
from tests.daemon_fixture import serving_with
from tests.killing import kill
from tests.patience import patient
from tests.strange_fixture import RUNTIME, StrangeOrlopd, container, create
from tests.strange_shim.manners import RELEASES, Manners
from tests.strange_shim.sandbox import STATUS

pytestmark = pytest.mark.root

POD: dict[str, Any] = {"sandbox_id": "pod", "sandboxer": "shim"}
SOON = 1.0


@pytest.fixture
def daemon() -> Iterator[StrangeOrlopd]:
    daemon = StrangeOrlopd()
    daemon.manners(Manners(release=RELEASES[-1]))
    yield from serving_with(daemon)


def _wrong(daemon: StrangeOrlopd, step: str, fault: str) -> None:
    daemon.manners(Manners(release=RELEASES[-1], step=step, fault=fault))


def _create(connection: Connection, **more: Any) -> None:
    record = Sandbox(sandbox_id="pod", runtime=Sandbox.Runtime(name=RUNTIME), sandboxer="shim")
    request = wire.ControllerCreateRequest(**POD, sandbox=record, **more)
    connection.sandbox_controller.create(request, timeout=30)


def _start(connection: Connection) -> wire.ControllerStartResponse:
    request = wire.ControllerStartRequest(**POD)
    answer: wire.ControllerStartResponse = connection.sandbox_controller.start(request, timeout=20)
    return answer


def _status(connection: Connection, **more: Any) -> wire.ControllerStatusResponse:
    request = wire.ControllerStatusRequest(**POD, **more)
    answer: wire.ControllerStatusResponse = connection.sandbox_controller.status(request)
    return answer


def _end(connection: Connection) -> None:
    control = connection.sandbox_controller
    control.stop(wire.ControllerStopRequest(**POD, timeout_secs=1))
    control.shutdown(wire.ControllerShutdownRequest(**POD))


def _bundle(daemon: StrangeOrlopd) -> Path:
    return daemon.state / "io.containerd.sandbox.controller.v1.shim" / daemon.namespace / "pod"


def _is_gone(daemon: StrangeOrlopd, connection: Connection) -> bool:
    sockets = daemon.leftovers().get("shim sockets")
    return not _bundle(daemon).exists() and not sockets and _status(connection).state == ""


def test_the_life_of_a_sandbox(daemon: StrangeOrlopd) -> None:
    with ThreadPoolExecutor() as pool, daemon.connect() as connection:
        control = connection.sandbox_controller
        _create(
            connection,
            netns_path="/var/run/netns/pod",
            annotations={"io.kubernetes.cri.sandbox-cgroup-parent": "/kubepods"},
            options=AnyMessage(type_url="runtime.v1.PodSandboxConfig", value=b"\n\x00"),
            rootfs=[Mount(type="bind", source="/pause")],
        )
        told = json.loads((_bundle(daemon) / "sandbox-told.json").read_text())
        assert told == {
            "netns": "/var/run/netns/pod",
            "annotations": {"io.kubernetes.cri.sandbox-cgroup-parent": "/kubepods"},
            "options": "runtime.v1.PodSandboxConfig",
            "rootfs": ["/pause"],
        }
        assert _status(connection).state == "SANDBOX_NOTREADY"
        started = _start(connection)
        assert Path(f"/proc/{started.pid}").exists()
        assert started.address.startswith("ttrpc+unix:///run/containerd/s/strange-")
        assert (started.version, started.spec.type_url) == (3, "strange/spec")
        found = _status(connection, verbose=True)
        assert (found.state, found.pid, dict(found.info)) == (
            "SANDBOX_READY", started.pid, {"mood": "strange"},
        )  # fmt: skip
        assert (found.address, found.version) == (started.address, 3)
        assert found.extra.type_url == "strange/extra"
        assert not _status(connection).info
        metrics = control.metrics(wire.ControllerMetricsRequest(**POD)).metrics
        assert (metrics.id, Metrics.FromString(metrics.data.value).pids.current) == ("pod", 3)
        control.update(wire.ControllerUpdateRequest(**POD, sandbox=Sandbox(sandbox_id="pod")))
        with pytest.raises(Unimplemented):
            control.platform(wire.ControllerPlatformRequest(**POD))

        waiting = pool.submit(control.wait, wire.ControllerWaitRequest(**POD))
        control.stop(wire.ControllerStopRequest(**POD, timeout_secs=1))
        assert waiting.result(20).exit_status == STATUS
        assert _status(connection).state == "SANDBOX_NOTREADY"
        control.shutdown(wire.ControllerShutdownRequest(**POD))
        daemon.wait_for(lambda: _is_gone(daemon, connection))


def test_what_ctr_does(daemon: StrangeOrlopd) -> None:
    """`ctr sandboxes run`, `ls` and `rm`: the store's record, and the controller beside it."""
    with daemon.connect() as connection:
        record = Sandbox(
            sandbox_id="pod", runtime=Sandbox.Runtime(name=RUNTIME), sandboxer="shim",
            spec=AnyMessage(type_url="types.containerd.io/opencontainers/runtime-spec/1/Spec",
                            value=b"{}"),
        )  # fmt: skip
        made = connection.sandboxes.create(wire.StoreCreateRequest(sandbox=record)).sandbox
        connection.sandbox_controller.create(wire.ControllerCreateRequest(**POD, sandbox=made))
        _start(connection)
        listed = connection.sandboxes.list(wire.StoreListRequest(filters=["id==pod"])).list
        assert [(each.sandbox_id, each.runtime.name) for each in listed] == [("pod", RUNTIME)]
        assert listed[0].created_at.seconds
        connection.sandboxes.get(wire.StoreGetRequest(sandbox_id="pod"))
        _end(connection)
        connection.sandboxes.delete(wire.StoreDeleteRequest(sandbox_id="pod"))
        assert not connection.sandboxes.list(wire.StoreListRequest()).list
        daemon.wait_for(lambda: _is_gone(daemon, connection))


def _remove(connection: Connection, *names: str) -> None:
    for name in names:
        connection.tasks.kill(tasks_pb2.KillRequest(container_id=name, signal=9))
        connection.tasks.wait(tasks_pb2.WaitRequest(container_id=name), timeout=20)
        connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=name))
        connection.containers.delete(DeleteContainerRequest(id=name))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_tasks_at_a_given_address(daemon: StrangeOrlopd) -> None:
    """In a sandbox of this daemon, and in one of which it knows no more than the address."""
    with daemon.connect() as connection:
        _create(connection)
        started = _start(connection)
        where: dict[str, Any] = {
            "task_api_address": started.address, "task_api_version": started.version,
        }  # fmt: skip
        container(connection, "own", sandbox="pod")
        container(connection, "known", sandbox="pod")
        container(connection, "foreign", sandbox="elsewhere")
        pids = [
            create(connection, "own"),
            create(connection, "known", **where),
            create(connection, "foreign", **where),
        ]
        assert {_parent(pid) for pid in pids} == {started.pid}
        for name in ("own", "known", "foreign"):
            connection.tasks.start(tasks_pb2.StartRequest(container_id=name))
        daemon.restart()
    with daemon.connect() as connection:
        tasks = connection.tasks  # those who do not tell in two seconds are not in the list
        daemon.wait_for(lambda: len(tasks.list(tasks_pb2.ListTasksRequest()).tasks) == 3)
        _remove(connection, "foreign", "known", "own")
        assert _status(connection).state == "SANDBOX_READY"
        _end(connection)
        daemon.wait_for(lambda: _is_gone(daemon, connection))


def test_addresses_that_lead_nowhere(daemon: StrangeOrlopd) -> None:
    with daemon.connect() as connection:
        container(connection, "alone")
        container(connection, "lost", sandbox="elsewhere")
        good, nobody = "ttrpc+unix:///run/x", f"ttrpc+unix://{daemon.state}/nobody"
        for name, address, kind, said in (
            ("alone", good, InvalidArgument, 'container "alone" is in no sandbox'),
            ("lost", "unix:///run/x", InvalidArgument, "is not like ttrpc"),
            ("lost", "soap+unix:///run/x", Unimplemented, "soap"),
            ("lost", "ttrpc+vsock://3:1", Unavailable, "only unix"),
            ("lost", nobody, Unavailable, "nobody"),
        ):
            with pytest.raises(kind, match=said):
                create(connection, name, task_api_address=address, task_api_version=3)
            assert not daemon.leftovers().get("bundles")
        for name in ("alone", "lost"):
            connection.containers.delete(DeleteContainerRequest(id=name))


def test_a_foreign_shim_that_dies(daemon: StrangeOrlopd) -> None:
    with daemon.connect() as connection:
        _create(connection)
        started = _start(connection)
        container(connection, "foreign", sandbox="elsewhere")
        pid = create(connection, "foreign", task_api_address=started.address)
        kill(started.pid)
        daemon.wait_for(lambda: not connection.tasks.list(tasks_pb2.ListTasksRequest()).tasks)
        daemon.wait_for(lambda: _is_gone(daemon, connection))
        daemon.wait_for(lambda: not mark(pid))  # it ends with its shim, before it was started
        connection.containers.delete(DeleteContainerRequest(id="foreign"))


CALLS: dict[str, Callable[[Connection], object]] = {
    "StartSandbox": lambda c: c.sandbox_controller.start(
        wire.ControllerStartRequest(**POD), timeout=SOON
    ),
    "SandboxStatus": lambda c: c.sandbox_controller.status(
        wire.ControllerStatusRequest(**POD), timeout=SOON
    ),
    "WaitSandbox": lambda c: c.sandbox_controller.wait(
        wire.ControllerWaitRequest(**POD), timeout=SOON
    ),
    "SandboxMetrics": lambda c: c.sandbox_controller.metrics(
        wire.ControllerMetricsRequest(**POD), timeout=SOON
    ),
    "StopSandbox": lambda c: c.sandbox_controller.stop(
        wire.ControllerStopRequest(**POD), timeout=SOON
    ),
    "ShutdownSandbox": lambda c: c.sandbox_controller.shutdown(
        wire.ControllerShutdownRequest(**POD), timeout=SOON
    ),
}


def test_shims_that_hang(daemon: StrangeOrlopd) -> None:
    with daemon.connect() as connection:
        _wrong(daemon, "CreateSandbox", "hang")
        record = Sandbox(sandbox_id="pod", runtime=Sandbox.Runtime(name=RUNTIME))
        with pytest.raises(DeadlineExceeded):
            connection.sandbox_controller.create(
                wire.ControllerCreateRequest(**POD, sandbox=record), timeout=5
            )
        daemon.wait_for(lambda: _is_gone(daemon, connection), 20)
        for step, call in CALLS.items():
            _wrong(daemon, "", "")
            if not _bundle(daemon).exists():
                _create(connection)
            _wrong(daemon, step, "hang")
            with pytest.raises(DeadlineExceeded):
                call(connection)
            if step == "StartSandbox":  # a sandbox that does not start is no more
                _wrong(daemon, "", "")
                daemon.wait_for(lambda: _is_gone(daemon, connection), 20)
        _wrong(daemon, "", "")
        _end(connection)
        daemon.wait_for(lambda: _is_gone(daemon, connection))


def test_shims_that_die(daemon: StrangeOrlopd) -> None:
    with daemon.connect() as connection:
        for step, call in CALLS.items():
            _wrong(daemon, "", "")
            _create(connection)
            if step != "StartSandbox":
                _start(connection)
            _wrong(daemon, step, "die")
            try:
                call(connection)
            except (Unavailable, NotFound, DeadlineExceeded):
                pass
            else:
                assert step in ("WaitSandbox", "StopSandbox")
            daemon.wait_for(lambda: _is_gone(daemon, connection), 20)


def test_one_that_does_not_start(daemon: StrangeOrlopd) -> None:
    with daemon.connect() as connection:
        _create(connection)
        _wrong(daemon, "StartSandbox", "no message")
        with pytest.raises(Internal):
            _start(connection)
        _wrong(daemon, "", "")
        daemon.wait_for(lambda: _is_gone(daemon, connection))


def test_who_waits_for_one_whose_shim_dies(daemon: StrangeOrlopd) -> None:
    with ThreadPoolExecutor() as pool, daemon.connect() as connection:
        heard = connection.events.subscribe(
            SubscribeRequest(filters=[f'topic=="/sandboxes/exit",namespace=={daemon.namespace}'])
        )
        _create(connection)
        shim = _start(connection).pid
        waiting = pool.submit(connection.sandbox_controller.wait, wire.ControllerWaitRequest(**POD))
        time.sleep(patient(2))  # until the daemon waits
        kill(shim)
        assert waiting.result(20).exit_status == 137
        assert SandboxExit.FromString(next(heard).event.value).exit_status == 137
        heard.close()
        daemon.wait_for(lambda: _is_gone(daemon, connection))


def test_an_old_shim_has_no_sandboxes(daemon: StrangeOrlopd) -> None:
    daemon.manners(Manners(release=RELEASES[0]))
    with daemon.connect() as connection:
        with pytest.raises(Unimplemented, match="Sandbox"):
            _create(connection)
        daemon.wait_for(lambda: _is_gone(daemon, connection))


def test_a_daemon_that_comes_back(daemon: StrangeOrlopd) -> None:
    """Adopted: a sandbox that is well, and one whose shim hangs. Gone: one whose shim has died."""
    with daemon.connect() as connection:
        _create(connection)
        shim = _start(connection).pid
    for step in ("", "PingSandbox"):
        daemon.kill9()
        _wrong(daemon, step, "hang")
        daemon.start()
        with daemon.connect() as connection:
            assert (_status(connection).state, _status(connection).pid) == ("SANDBOX_READY", shim)
    daemon.kill9()
    kill(shim)
    _wrong(daemon, "", "")
    daemon.start()
    with daemon.connect() as connection:
        assert _is_gone(daemon, connection)
        found = _status(connection)
        assert (found.sandbox_id, found.pid, found.address) == ("pod", 0, "")
        assert found.exited_at.seconds
