"""Shims that hang, and clients that give up: nobody else waits, and nothing is lost or left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import Connection
from orlop.errors import DeadlineExceeded, Unavailable
from orlop.sys.mount import unmount_all
from orlop.wire.services import tasks_pb2
from tests.daemon_fixture import Orlopd
from tests.killing import kill
from tests.patience import patient

pytestmark = pytest.mark.root

# A request that went half waits its five seconds twice.
SEND_LIMIT = 10.0
_CONNECTED = "03"  # of a socket, in /proc/net/unix


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _state(connection: Connection) -> tuple[int, int]:
    found = connection.tasks.get(tasks_pb2.GetRequest(container_id="held"), timeout=5)
    return found.process.pid, found.process.status


@contextmanager
def _stopped(shim: int) -> Iterator[None]:
    """Stop a shim: all of its process group, for a hand may be at work beside the keeper."""
    os.killpg(shim, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(shim, signal.SIGCONT)


def _flood(connection: Connection) -> None:
    """Send more than a stopped shim's connection takes, and wait until orlopd sees that."""
    spec = AnyMessage(type_url="x", value=b"x" * 60_000)
    for number in range(10):
        request = tasks_pb2.ExecProcessRequest(container_id="held", exec_id=f"e{number}", spec=spec)
        with pytest.raises((DeadlineExceeded, Unavailable)):
            connection.tasks.exec(request, timeout=0.2)
    time.sleep(SEND_LIMIT + 0.5)


def test_a_stopped_shim_holds_up_nobody(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("run", "-d", busybox, "held", "sleep", "1000")
    with ThreadPoolExecutor(1) as pool, orlopd.connect() as connection:
        pid, status = _state(connection)
        wait = tasks_pb2.WaitRequest(container_id="held")
        waiting: Future[Any] = pool.submit(connection.tasks.wait, wait)
        time.sleep(0.1)
        with _stopped(_parent(pid)):
            _flood(connection)
            orlopd.wait_for(lambda: "held" in orlopd.ctr("tasks", "ls").stdout)  # reached again
            began = time.monotonic()
            listed = connection.tasks.list(tasks_pb2.ListTasksRequest(), timeout=patient(10))
            assert time.monotonic() - began < patient(5)
            assert [task.id for task in listed.tasks] == ["held"]
        # Another connection took the place of the one that was full; who waited waits on.
        assert _state(connection) == (pid, status)
        assert not waiting.done(), waiting.result()
        orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "held")
        assert waiting.result(10).exit_status == 137
    orlopd.ctr("tasks", "rm", "held", check=False)
    orlopd.ctr("containers", "rm", "held")


def test_sigterm_does_not_wait_for_a_stopped_shim(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("run", "-d", busybox, "held", "sleep", "1000")
    with orlopd.connect() as connection:
        pid, status = _state(connection)
    with _stopped(_parent(pid)):
        assert orlopd.stop() < patient(10)
    orlopd.start()
    with orlopd.connect() as connection:
        assert _state(connection) == (pid, status)
    orlopd.ctr("tasks", "rm", "-f", "held")
    orlopd.ctr("containers", "rm", "held")


def test_sigterm_does_not_wait_for_a_deletion_that_hangs(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("run", "-d", busybox, "held", "sleep", "1000")
    with orlopd.connect() as connection:
        pid, _ = _state(connection)
    shim = _parent(pid)
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "held")
    orlopd.wait_for(lambda: not _running(orlopd))
    with (
        _stopped(shim),
        subprocess.Popen(
            orlopd.ctr_command("tasks", "rm", "held"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as client,
    ):  # fmt: skip
        time.sleep(1)
        assert client.poll() is None
        assert orlopd.stop() < patient(10)
        client.kill()
    orlopd.start()
    orlopd.ctr("tasks", "rm", "held", check=False)  # the shim may have had the first one's order
    orlopd.wait_for(lambda: "held" not in orlopd.ctr("tasks", "ls").stdout)
    orlopd.ctr("containers", "rm", "held")


def test_what_shares_a_shim_shares_its_connection_after_a_restart(
    orlopd: Orlopd, busybox: str
) -> None:
    names = [f"c{number}" for number in range(6)]
    for name in names:
        orlopd.orlop("run", "-d", "--name", name, "--annotation",
                     "io.containerd.runc.v2.group=pod", busybox, "sleep", "1000")  # fmt: skip
    orlopd.kill9()
    orlopd.start()
    (address,) = (str(each) for each in (orlopd.state / "s").iterdir())

    def connections() -> int:
        table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return len([row for row in table if row[-1] == address and row[5] == _CONNECTED])

    orlopd.wait_for(lambda: connections() == 1)  # when the shim has heard of those that ended
    orlopd.orlop("rm", "-f", *names)


@pytest.mark.fresh
def test_what_cannot_be_run_costs_no_descriptor(orlopd: Orlopd, busybox: str) -> None:
    def held() -> int:
        found = 0
        for each in Path(f"/proc/{orlopd.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found += "pidfd" in str(each.readlink())
        return found

    def run() -> None:
        refused = orlopd.orlop("run", "--rm", busybox, "no-such-program", check=False)
        assert refused.returncode == 127

    run()
    before = held()
    for _ in range(5):
        run()
    orlopd.wait_for(lambda: held() <= before)


def test_a_task_whose_shim_has_died_is_not_told_of_from_memory(
    orlopd: Orlopd, busybox: str, tmp_path: Path
) -> None:
    runtime, hold = tmp_path / "runtime", tmp_path / "hold"
    runtime.write_text(f'#!/bin/sh\nwhile test -e {hold}; do sleep 0.1; done\nexec runc "$@"\n')
    runtime.chmod(0o755)
    orlopd.ctr(
        "run", "-d", "--null-io", "--runc-binary", str(runtime), busybox, "held", "sleep", "1000"
    )
    assert len(_running(orlopd)) == 1
    with orlopd.connect() as connection:
        pid, _ = _state(connection)
    hold.touch()
    try:
        kill(_parent(pid))
        orlopd.wait_for(lambda: not _running(orlopd), 30)
        os.kill(pid, 0)  # it is to be buried still
    finally:
        hold.unlink()
    orlopd.wait_for(lambda: not orlopd.leftovers().get("bundles"), 15)
    orlopd.ctr("containers", "rm", "held")


def test_a_run_that_is_given_up_at_any_moment_leaves_no_task(
    orlopd: Orlopd, busybox: str, tmp_path: Path
) -> None:
    own = {**os.environ, "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for delay in range(10, 130, 6):
        name = f"c{delay}"
        with subprocess.Popen(
            orlopd.ctr_command("run", "--null-io", busybox, name, "true"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=own,
        ) as client:  # fmt: skip
            time.sleep(delay / 1000)
            client.kill()
    orlopd.wait_for(lambda: not _running(orlopd), 15)
    unmount_all(tmp_path)  # what ctr had mounted for itself
    for delay in range(10, 130, 6):
        for command in (("tasks", "rm", "-f"), ("containers", "rm"), ("snapshots", "rm")):
            orlopd.ctr(*command, f"c{delay}", check=False)
    orlopd.wait_for(lambda: not orlopd.leftovers().get("bundles"), 30)


def _running(orlopd: Orlopd) -> list[str]:
    """Containers that neither have ended nor wait for a start that never comes."""
    lines = orlopd.ctr("tasks", "ls").stdout.splitlines()[1:]
    return [line for line in lines if line.split()[2] not in ("STOPPED", "CREATED")]
