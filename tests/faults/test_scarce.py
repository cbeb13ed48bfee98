"""What containers need and is not there: a runtime, a root, room, descriptors, a reader."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any

from orlop.client import Connection, containers, creating, images
from orlop.client.fifos import Fifos
from orlop.client.stdio import Streams
from orlop.errors import OrlopError
from orlop.oci.spec import ContainerSpec
from orlop.rpc.convert import pack
from orlop.wire.runc_pb2 import Options
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import RUNNING
from orlop.wire.types_pb2 import Mount
from tests.daemon_fixture import BUSYBOX, Orlopd

pytestmark = [pytest.mark.root, pytest.mark.fresh]

LIMIT = 4096


def _make(connection: Connection, name: str, *command: str, terminal: bool = False) -> list[Mount]:
    """A container of the small image; the mounts of its root."""
    view = images.view(connection, images.get(connection, BUSYBOX))
    spec = ContainerSpec(args=(), terminal=terminal)
    wanted = creating.Wanted(image=view, id=name, command=list(command), spec=spec)
    return creating.create(connection, wanted)[1]


def _start(connection: Connection, name: str, mounts: list[Mount], streams: Streams) -> int:
    pid = containers.create_task(connection, name, mounts, streams)
    connection.tasks.start(tasks_pb2.StartRequest(container_id=name), timeout=30)
    return pid


def _remove(connection: Connection, name: str) -> None:
    containers.remove(connection, containers.get(connection, name), force=True)


def _state(connection: Connection, name: str) -> int:
    request = tasks_pb2.GetRequest(container_id=name)
    return int(connection.tasks.get(request, timeout=10).process.status)


def _nothing_runs(daemon: Orlopd) -> bool:
    found = daemon.leftovers()
    return not any(found.get(kind) for kind in ("bundles", "runtime", "mounts", "cgroups"))


def test_a_runtime_that_cannot_be_run(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program\n")
    script = tmp_path / "script"
    script.write_text("no program\n")
    script.chmod(0o755)
    wrong = {
        str(tmp_path / "missing"): "executable file not found",
        str(tmp_path): "permission denied",
        str(text): "permission denied",
        str(script): "exec format error",
    }
    with orlopd.connect() as connection:
        mounts = _make(connection, "one", "true")
        for path, said in wrong.items():
            request = tasks_pb2.CreateTaskRequest(
                container_id="one", rootfs=mounts, options=pack(Options(binary_name=path))
            )
            with pytest.raises(OrlopError, match=f"(?i){said}") as caught:
                connection.tasks.create(request, timeout=30)
            assert path in str(caught.value)
            orlopd.wait_for(lambda: _nothing_runs(orlopd))
        _start(connection, "one", mounts, Streams())
        _remove(connection, "one")


def test_a_root_that_is_not_there(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    with orlopd.connect() as connection:
        mounts = _make(connection, "one", "true")
        nowhere = [Mount(type="bind", source=str(tmp_path / "none"), options=["rbind", "rw"])]
        for root, said in ((nowhere, f"no such file.*{tmp_path}/none"), ([], "not found in")):
            with pytest.raises(OrlopError, match=f"(?i){said}"):
                containers.create_task(connection, "one", root, Streams())
            orlopd.wait_for(lambda: _nothing_runs(orlopd))
        _start(connection, "one", mounts, Streams())
        _remove(connection, "one")


def test_a_cgroup_that_somebody_else_is_in(orlopd: Orlopd, busybox: str) -> None:
    """The container runs and is deleted; the folder stays, with the stranger in it."""
    with orlopd.connect() as connection, ExitStack() as stack:
        mounts = _make(connection, "one", "sleep", "1000")
        spec = json.loads(containers.get(connection, "one").spec.value)
        group = Path("/sys/fs/cgroup/pids") / spec["linux"]["cgroupsPath"].strip("/")
        if not group.parent.parent.exists():
            group = Path("/sys/fs/cgroup") / spec["linux"]["cgroupsPath"].strip("/")
        group.mkdir(parents=True, exist_ok=True)
        stranger = stack.enter_context(subprocess.Popen(["sleep", "1000"]))
        stack.callback(stranger.kill)
        (group / "cgroup.procs").write_text(str(stranger.pid))
        with suppress(OrlopError):  # runc may refuse; what counts is that nothing hangs or stays
            _start(connection, "one", mounts, Streams())
        began = time.monotonic()
        _remove(connection, "one")
        assert time.monotonic() - began < 30
        assert stranger.poll() is None
        stranger.kill()
        stranger.wait()
        orlopd.wait_for(lambda: not _members(group))
        with suppress(OSError):
            group.rmdir()
        orlopd.wait_for(lambda: _nothing_runs(orlopd))


def _members(group: Path) -> str:
    with suppress(OSError):  # removed, maybe just now
        return (group / "cgroup.procs").read_text()
    return ""


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("opened", [False, True])
def test_a_reader_that_never_reads(
    orlopd: Orlopd, busybox: str, tmp_path: Path, terminal: bool, opened: bool
) -> None:
    """The container blocks; its shim does not, nor does anybody else."""
    with orlopd.connect() as connection, ExitStack() as stack:
        fifos = stack.enter_context(
            Fifos(tmp_path / "fifos", "one", stdin=False, terminal=terminal)
        )
        if not opened:
            for fd in (fifos.stdout_fd, fifos.stderr_fd):
                if fd is not None:
                    os.close(fd)
            fifos.stdout_fd = fifos.stderr_fd = None
        mounts = _make(connection, "one", "sh", "-c", "yes & yes >&2", terminal=terminal)
        _start(connection, "one", mounts, fifos.streams)

        def processes() -> int:
            request = tasks_pb2.ListPidsRequest(container_id="one")
            return len(connection.tasks.list_pids(request, timeout=10).processes)

        orlopd.wait_for(lambda: processes() >= 2)  # the shell, and what it has begun
        time.sleep(1)  # until all that takes what they say is full
        assert _state(connection, "one") == RUNNING
        assert processes() >= 2
        connection.tasks.metrics(tasks_pb2.MetricsRequest(filters=["id==one"]), timeout=10)
        done = orlopd.ctr("run", "--rm", busybox, "two", "echo", "through")
        assert done.stdout == "through\n"
        containers.send_signal(connection, "one", 9, everything=True)
        assert containers.wait(connection, "one", timeout=20) == 137
        deleted = connection.tasks.delete(
            tasks_pb2.DeleteTaskRequest(container_id="one"), timeout=30
        )
        assert deleted.exit_status == 137
        _remove(connection, "one")


def test_no_descriptor_is_left(orlopd: Orlopd, busybox: str) -> None:
    """At its limit the daemon refuses what is new, and keeps what it has; later all is well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.prlimit(orlopd.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    try:
        with orlopd.connect() as connection:
            mounts = _make(connection, "one", "sleep", "1000")
            _start(connection, "one", mounts, Streams())
            more = _make(connection, "two", "true")
            with _crowd(orlopd):
                assert _state(connection, "one") == RUNNING
                with pytest.raises(OrlopError, match=r"(?i)too many open files|no shim|fork"):
                    containers.create_task(connection, "two", more, Streams())
                assert _state(connection, "one") == RUNNING
            orlopd.wait_for(lambda: _descriptors(orlopd.pid) < LIMIT // 2, 30)
            _start(connection, "two", more, Streams())
            assert containers.wait(connection, "two", timeout=20) == 0
            with orlopd.connect() as another:
                assert _state(another, "one") == RUNNING
            for name in ("one", "two"):
                _remove(connection, name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _crowd(daemon: Orlopd) -> Iterator[None]:
    """So many clients that connect and say nothing that no descriptor is left."""
    with ExitStack() as stack:
        deadline = time.monotonic() + 60
        while _descriptors(daemon.pid) < LIMIT:
            assert time.monotonic() < deadline, _descriptors(daemon.pid)
            for _ in range(100):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                with suppress(BlockingIOError):  # the queue of those who wait is full
                    client.connect(f"{daemon.address}.ttrpc")
            time.sleep(0.05)
        yield


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def _on_tmpfs(folder: str, size: str) -> Iterator[Orlopd]:
    """A daemon, one of whose folders is a small file system of its own."""
    daemon = Orlopd()
    where: Path = getattr(daemon, folder)
    where.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)], check=True
        )
        daemon.start()
        yield daemon
        daemon.stop()
        with suppress(AssertionError):  # a shim takes a moment to go
            daemon.wait_for(lambda: not any({**daemon.leftovers(), "mounts": []}.values()))
        left = {**daemon.leftovers(), "mounts": []}
        assert not any(left.values()), left
        assert "Traceback" not in daemon.log.read_text(), daemon.log.read_text()
    finally:
        daemon.discard()


def test_no_room_in_the_state_folder(busybox_archive: Path) -> None:
    with _on_tmpfs("state", "1m") as daemon, daemon.connect() as connection:
        daemon.ctr("images", "import", str(busybox_archive))
        mounts = _make(connection, "one", "sleep", "1000")
        _start(connection, "one", mounts, Streams())
        more = _make(connection, "two", "true")
        ballast = daemon.state / "ballast"
        _fill(ballast)
        with pytest.raises(OrlopError, match=r"(?i)no space left"):
            containers.create_task(connection, "two", more, Streams())
        assert _state(connection, "one") == RUNNING
        containers.send_signal(connection, "one", 9)
        assert containers.wait(connection, "one", timeout=20) == 137
        _remove(connection, "one")
        ballast.unlink()
        _start(connection, "two", more, Streams())
        assert containers.wait(connection, "two", timeout=20) == 0
        _remove(connection, "two")


def _fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_no_room_in_the_root_folder(busybox_archive: Path) -> None:
    """Records cannot be made, what runs can be ended."""
    with _on_tmpfs("root", "32m") as daemon, daemon.connect() as connection:
        daemon.ctr("images", "import", str(busybox_archive))
        mounts = _make(connection, "one", "sleep", "1000")
        _start(connection, "one", mounts, Streams())
        ballast = daemon.root / "ballast"
        _fill(ballast)
        with pytest.raises(OrlopError, match=r"(?i)no space left|disk is full"):
            for number in range(100):  # there is room in the pages that the database has
                connection.containers.create(_record(f"c{number}"), timeout=20)
        assert _state(connection, "one") == RUNNING
        containers.send_signal(connection, "one", 9)
        assert containers.wait(connection, "one", timeout=20) == 137
        connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="one"), timeout=30)
        ballast.unlink()
        _remove(connection, "one")
        again = _make(connection, "two", "true")
        _start(connection, "two", again, Streams())
        assert containers.wait(connection, "two", timeout=20) == 0
        _remove(connection, "two")


def _record(name: str) -> containers_pb2.CreateContainerRequest:
    record = containers_pb2.Container(
        id=name, labels={"ballast": "x" * 4000},
        runtime=containers_pb2.Container.Runtime(name="io.containerd.runc.v2"),
        spec=Any(type_url="x", value=b"{}"),
    )  # fmt: skip
    return containers_pb2.CreateContainerRequest(container=record)


def test_a_root_folder_that_cannot_be_written() -> None:
    """It says so at start, in a line."""
    daemon = Orlopd()
    try:
        daemon.root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", daemon.root], check=True)
        with pytest.raises(AssertionError, match=r"(?i)orlopd ended.*\n.*read-only file system"):
            daemon.start()
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.discard()
