"""Shims that follow other releases, hang, die, or talk nonsense, at every step that there is.

Whatever a shim does, the client gets a clear error, other containers do not notice, nothing is
left, and exits are told once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any

from orlop.client import Connection
from orlop.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotFound,
    OrlopError,
    ResourceExhausted,
    Unavailable,
    Unknown,
)
from orlop.sys.process import mark
from orlop.wire.services import tasks_pb2
from orlop.wire.services.containers_pb2 import DeleteContainerRequest
from orlop.wire.services.events_pb2 import SubscribeRequest
from orlop.wire.services.tasks_pb2 import ListTasksRequest
from orlop.wire.task_types_pb2 import RUNNING, STOPPED
from tests.killing import kill
from tests.patience import patient
from tests.strange_fixture import (
    Heard,
    StrangeOrlopd,
    container,
    create,
    listening,
    run,
)
from tests.strange_shim.manners import RELEASES, Manners

pytestmark = pytest.mark.root

SOON = 1.0  # seconds that a client has for a shim that hangs


@pytest.fixture
def daemon() -> Iterator[StrangeOrlopd]:
    """One orlopd for all tests, which each leaves as it found it; another after a failure."""
    found = _shared.pop() if _shared else StrangeOrlopd()
    try:
        if not found.runs:
            found.start()
        yield found
        found.manners(Manners())
        with suppress(AssertionError):
            found.wait_for(found.is_clean)
        assert found.is_clean(), f"{found.leftovers()}\n{found.log.read_text()}"
    except BaseException:
        found.discard()
        raise
    _shared.append(found)


_shared: list[StrangeOrlopd] = []


@pytest.fixture(scope="module", autouse=True)
def _end_of_all() -> Iterator[None]:
    yield
    while _shared:
        daemon = _shared.pop()
        try:
            daemon.close()
        finally:
            daemon.discard()


def _bundle(daemon: StrangeOrlopd, name: str) -> Path:
    return daemon.state / "io.containerd.runtime.v2.task" / daemon.namespace / name


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _remove(connection: Connection, *names: str) -> None:
    for name in names:
        connection.containers.delete(DeleteContainerRequest(id=name))


def _end(connection: Connection, name: str) -> int:
    """Kill it, wait for it, delete it; its exit status."""
    tasks = connection.tasks
    tasks.kill(tasks_pb2.KillRequest(container_id=name, signal=9), timeout=20)
    status = tasks.wait(tasks_pb2.WaitRequest(container_id=name), timeout=20).exit_status
    deleted = tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=name), timeout=20)
    assert deleted.exit_status == status
    return int(status)


# What a client asks of a task that runs; `Delete` of one that has ended.


def _get(c: Connection) -> object:
    return c.tasks.get(tasks_pb2.GetRequest(container_id="odd"), timeout=SOON)


def _exec(c: Connection) -> object:
    spec = Any(type_url="x", value=b'{"args": ["true"]}')
    request = tasks_pb2.ExecProcessRequest(container_id="odd", exec_id="e", spec=spec)
    return c.tasks.exec(request, timeout=SOON)


def _delete(c: Connection) -> object:
    return c.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="odd"), timeout=SOON)


CALLS: dict[str, Callable[[Connection], object]] = {
    "Start": lambda c: c.tasks.start(tasks_pb2.StartRequest(container_id="odd"), timeout=SOON),
    "Wait": lambda c: c.tasks.wait(tasks_pb2.WaitRequest(container_id="odd"), timeout=SOON),
    "State": _get,
    "Kill": lambda c: c.tasks.kill(
        tasks_pb2.KillRequest(container_id="odd", signal=9), timeout=SOON
    ),
    "Exec": _exec,
    "Pids": lambda c: c.tasks.list_pids(
        tasks_pb2.ListPidsRequest(container_id="odd"), timeout=SOON
    ),
    "Pause": lambda c: c.tasks.pause(tasks_pb2.PauseTaskRequest(container_id="odd"), timeout=SOON),
    "Resume": lambda c: c.tasks.resume(
        tasks_pb2.ResumeTaskRequest(container_id="odd"), timeout=SOON
    ),
    "Update": lambda c: c.tasks.update(
        tasks_pb2.UpdateTaskRequest(container_id="odd"), timeout=SOON
    ),
    "ResizePty": lambda c: c.tasks.resize_pty(
        tasks_pb2.ResizePtyRequest(container_id="odd"), timeout=SOON
    ),
    "CloseIO": lambda c: c.tasks.close_io(
        tasks_pb2.CloseIORequest(container_id="odd", stdin=True), timeout=SOON
    ),
    "Delete": _delete,
}


def _prepare(daemon: StrangeOrlopd, connection: Connection, heard: Heard, step: str) -> int:
    """The container `odd` at the point where a step is what comes next; its pid."""
    pid = create(connection, "odd")
    if step != "Start":
        connection.tasks.start(tasks_pb2.StartRequest(container_id="odd"))
    if step == "Delete":
        connection.tasks.kill(tasks_pb2.KillRequest(container_id="odd", signal=9))
        daemon.wait_for(lambda: heard.counts["/tasks/exit", "odd"] == 1)
    return pid


def _others_do_not_notice(connection: Connection) -> None:
    began = time.monotonic()
    request = tasks_pb2.GetRequest(container_id="calm")
    process = None
    while process is None:
        with suppress(DeadlineExceeded):  # a shim has two seconds, and the machine may be busy
            process = connection.tasks.get(request, timeout=patient(20)).process
        assert time.monotonic() - began < patient(10)
    assert process.status == RUNNING


def _is_gone(daemon: StrangeOrlopd, pid: int) -> bool:
    bundle = _bundle(daemon, "odd").exists()
    return not bundle and not (pid and mark(pid))


@pytest.mark.parametrize("release", RELEASES)
def test_a_shim_of_every_release(daemon: StrangeOrlopd, release: str) -> None:
    daemon.manners(Manners(release=release))
    with daemon.connect() as connection, listening(daemon) as heard:
        for name, command in (("one", ("sleep", "1000")), ("two", ("sh", "-c", "exit 7"))):
            container(connection, name, command)
            run(connection, name)
        told = json.loads((_bundle(daemon, "one") / "options-told.json").read_text())
        knows_options = release in (RELEASES[0], *RELEASES[-2:])
        assert told == (["containerd.runc.v1.Options"] if knows_options else [])
        waited = connection.tasks.wait(tasks_pb2.WaitRequest(container_id="two"), timeout=20)
        assert waited.exit_status == 7
        daemon.restart()
    with daemon.connect() as connection, listening(daemon) as heard:

        def listed() -> dict[str, int]:
            """Without those who do not tell in two seconds."""
            found = connection.tasks.list(ListTasksRequest()).tasks
            return {each.id: each.status for each in found}

        daemon.wait_for(lambda: listed() == {"one": RUNNING, "two": STOPPED})
        assert _end(connection, "one") == 137
        connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="two"))
        daemon.wait_for(lambda: heard.counts["/tasks/delete", "one"] == 1)
        assert heard.counts["/tasks/exit", "one"] == 1
        _remove(connection, "one", "two")


def test_a_shim_with_a_version_of_its_own(daemon: StrangeOrlopd) -> None:
    """It is built on a containerd that is newer than its version makes believe."""
    daemon.manners(Manners(release=RELEASES[-1], says="0.5.0"))
    with daemon.connect() as connection:
        container(connection, "one")
        run(connection, "one")
        assert _end(connection, "one") == 137
        _remove(connection, "one")


@pytest.mark.parametrize("release", [RELEASES[0], RELEASES[2], RELEASES[-1]])
def test_several_containers_in_one_shim(daemon: StrangeOrlopd, release: str) -> None:
    daemon.manners(Manners(release=release))
    group = {"io.containerd.runc.v2.group": "pod"}
    with daemon.connect() as connection:
        pids = []
        for name in ("one", "two", "three"):
            container(connection, name, annotations=group)
            pids.append(run(connection, name))
        assert len({_parent(pid) for pid in pids}) == 1
        assert _end(connection, "one") == 137
        assert mark(_parent(pids[1]))
        daemon.restart()
    with daemon.connect() as connection:
        assert _end(connection, "two") == 137
        kill(_parent(pids[2]))
        daemon.wait_for(lambda: not connection.tasks.list(ListTasksRequest()).tasks)
        daemon.wait_for(lambda: not mark(pids[2]))
        _remove(connection, "one", "two", "three")


STARTS: dict[str, tuple[type[OrlopError] | tuple[type[OrlopError], ...], str]] = {
    "die": (Unknown, "start failed"),
    "refuse": (Unknown, "out of sorts"),
    "noise": (OrlopError, "no address"),
    "endless": (Unknown, "prints more than 1 MiB"),
    "nobody": (Unavailable, "strange-nobody"),
    "future": (OrlopError, "version 4"),
    "hang": ((DeadlineExceeded, Cancelled), "deadline|cancel"),
}


@pytest.mark.parametrize("fault", STARTS)
def test_a_start_that_goes_wrong(daemon: StrangeOrlopd, fault: str) -> None:
    kind, said = STARTS[fault]
    with daemon.connect() as connection, listening(daemon) as heard:
        container(connection, "odd")
        daemon.manners(Manners(step="start", fault=fault))
        with pytest.raises(kind, match=said):
            create(connection, "odd", timeout=3 if fault == "hang" else 30)
        daemon.wait_for(lambda: _is_gone(daemon, 0))
        daemon.manners(Manners())
        _run_again(daemon, connection)
        assert _end(connection, "odd") == 137
        daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] == 1)
        assert heard.counts["/tasks/exit", "odd"] == 1
        _remove(connection, "odd")


def _run_again(daemon: StrangeOrlopd, connection: Connection) -> None:
    """A create that was given up lets go of the name a moment after its bundle has gone."""

    def created() -> bool:
        try:
            create(connection, "odd")
        except AlreadyExists:
            return False
        return True

    daemon.wait_for(created)
    connection.tasks.start(tasks_pb2.StartRequest(container_id="odd"), timeout=30)


@pytest.mark.parametrize("fault", ["hang", "die", "leave", "absurd length", "no message", "noise"])
def test_a_create_that_goes_wrong(daemon: StrangeOrlopd, fault: str) -> None:
    with daemon.connect() as connection, listening(daemon) as heard:
        container(connection, "odd")
        daemon.manners(Manners(step="Create", fault=fault))
        if fault == "leave":
            create(connection, "odd")  # and dies
        else:
            with pytest.raises((DeadlineExceeded, Unavailable, Internal, Cancelled)):
                create(connection, "odd", timeout=10 if fault == "hang" else 30)
        daemon.wait_for(lambda: _is_gone(daemon, 0), 30)
        daemon.wait_for(lambda: not connection.tasks.list(ListTasksRequest()).tasks)
        daemon.manners(Manners())
        _run_again(daemon, connection)
        assert _end(connection, "odd") == 137
        told = 1 + (fault == "leave")
        daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] >= told)
        assert heard.counts["/tasks/exit", "odd"] == told
        _remove(connection, "odd")


@pytest.mark.parametrize("step", CALLS)
def test_a_shim_that_hangs_at_a_call(daemon: StrangeOrlopd, step: str) -> None:
    with daemon.connect() as connection, listening(daemon) as heard:
        for name in ("calm", "odd"):
            container(connection, name)
        run(connection, "calm")
        pid = _prepare(daemon, connection, heard, step)
        daemon.manners(Manners(step=step, fault="hang"))
        with pytest.raises(DeadlineExceeded):
            CALLS[step](connection)
        _others_do_not_notice(connection)
        kill(_shim_of(daemon) if step == "Delete" else _parent(pid))
        daemon.wait_for(lambda: _is_gone(daemon, pid), 30)
        daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] == 1)
        assert heard.counts["/tasks/exit", "odd"] == 1
        daemon.manners(Manners())
        assert _end(connection, "calm") == 137
        _remove(connection, "calm", "odd")


def _shim_of(daemon: StrangeOrlopd) -> int:
    bundle = _bundle(daemon, "odd")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == bundle:
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError("it has no shim")


@pytest.mark.parametrize("fault", ["die", "leave"])
@pytest.mark.parametrize("step", CALLS)
def test_a_shim_that_dies_at_a_call(
    daemon: StrangeOrlopd, step: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (step, fault) != ("Wait", "leave"):  # which waits on, as nothing has ended
        monkeypatch.setattr(sys.modules[__name__], "SOON", 20.0)
    with daemon.connect() as connection, listening(daemon) as heard:
        for name in ("calm", "odd"):
            container(connection, name)
        run(connection, "calm")
        pid = _prepare(daemon, connection, heard, step)
        daemon.manners(Manners(step=step, fault=fault))
        try:
            answer = CALLS[step](connection)
        except (Unavailable, NotFound, DeadlineExceeded):
            pass  # also: it waits on, as nothing has ended
        else:
            # A wait ends by itself, when the shim has been buried.
            assert fault == "leave" or step in ("Wait", "Delete"), answer
        if (step, fault) == ("Wait", "leave"):
            kill(_shim_of(daemon))
        daemon.wait_for(lambda: _is_gone(daemon, pid), 30)
        daemon.wait_for(lambda: not _odd(connection))
        _others_do_not_notice(connection)
        if (step, fault) != ("Delete", "leave"):  # it had no time to tell
            daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] == 1)
        assert heard.counts["/tasks/exit", "odd"] == 1
        assert heard.exits["odd"] == 137
        daemon.manners(Manners())
        assert _end(connection, "calm") == 137
        _remove(connection, "calm", "odd")


def _odd(connection: Connection) -> bool:
    return any(each.id == "odd" for each in connection.tasks.list(ListTasksRequest()).tasks)


NONSENSE = {
    "noise": (Unavailable, DeadlineExceeded),
    "absurd length": (Unavailable, DeadlineExceeded),
    "too long": (ResourceExhausted,),
    "no response": (Internal,),
    "no message": (Internal,),
    "unknown type": (Internal,),
    "many frames": (Internal,),
}


@pytest.mark.parametrize("fault", NONSENSE)
@pytest.mark.parametrize("step", ["Start", "Wait", "Delete"])
def test_a_shim_that_answers_nonsense(
    daemon: StrangeOrlopd, step: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_hang = DeadlineExceeded in NONSENSE[fault]
    monkeypatch.setattr(sys.modules[__name__], "SOON", 5.0 if may_hang else 20.0)
    with daemon.connect() as connection, listening(daemon) as heard:
        for name in ("calm", "odd"):
            container(connection, name)
        run(connection, "calm")
        _prepare(daemon, connection, heard, step)
        daemon.manners(Manners(step=step, fault=fault))
        if step == "Wait":
            connection.tasks.kill(tasks_pb2.KillRequest(container_id="odd", signal=9), timeout=20)
        with pytest.raises(NONSENSE[fault]):
            CALLS[step](connection)
        _others_do_not_notice(connection)
        daemon.manners(Manners())
        # It is well again, on another connection where that was needed.
        if step == "Start":
            connection.tasks.kill(tasks_pb2.KillRequest(container_id="odd", signal=9), timeout=20)
        if step != "Delete":
            connection.tasks.wait(tasks_pb2.WaitRequest(container_id="odd"), timeout=20)
        try:
            connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="odd"), timeout=20)
        except NotFound:
            assert step == "Delete"  # done, though it was not said well
        daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] == 1)
        assert heard.counts["/tasks/exit", "odd"] == 1
        assert _end(connection, "calm") == 137
        _remove(connection, "calm", "odd")


@pytest.mark.parametrize("fault", ["hang", "die", "leave", "noise", "stay"])
def test_a_shim_that_goes_wrong_at_its_end(daemon: StrangeOrlopd, fault: str) -> None:
    with daemon.connect() as connection, listening(daemon) as heard:
        container(connection, "odd", ("sh", "-c", "exit 3"))
        pid = run(connection, "odd")
        daemon.wait_for(lambda: heard.counts["/tasks/exit", "odd"] == 1)
        daemon.manners(Manners(step="Shutdown", fault=fault))
        deleted = connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="odd"))
        assert deleted.exit_status == 3
        daemon.wait_for(lambda: _is_gone(daemon, pid))
        if fault in ("hang", "noise", "stay"):  # else it had no time to tell
            daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] == 1)
        assert heard.counts["/tasks/exit", "odd"] == 1
        _remove(connection, "odd")


@pytest.mark.parametrize("fault", ["hang", "die", "refuse", "noise", "endless"])
def test_a_delete_of_the_dead_that_goes_wrong(daemon: StrangeOrlopd, fault: str) -> None:
    """What the container's shim does not clear up, stays, and is said; the task is over."""
    with daemon.connect() as connection, listening(daemon) as heard:
        container(connection, "odd")
        pid = run(connection, "odd")
        daemon.manners(Manners(step="delete", fault=fault))
        kill(_parent(pid))
        daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] == 1, 30)
        daemon.wait_for(lambda: not connection.tasks.list(ListTasksRequest()).tasks)
        assert (heard.counts["/tasks/exit", "odd"], heard.exits["odd"]) == (1, 255)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        daemon.manners(Manners())
        run(connection, "odd")
        assert _end(connection, "odd") == 137
        _remove(connection, "odd")


@pytest.mark.parametrize("reads_answers", [True, False])
def test_a_flood_of_events(daemon: StrangeOrlopd, reads_answers: bool) -> None:
    """A subscriber that does not read is dropped; memory and threads stay bounded."""
    with daemon.connect() as connection, daemon.connect() as slow:
        container(connection, "calm")
        container(connection, "odd")
        run(connection, "calm")
        wanted = SubscribeRequest(filters=['event.container_id=="odd"'])
        held = slow.events.subscribe(wanted)
        before = _size(daemon.pid)
        daemon.manners(Manners(flood=100_000, reads_answers=reads_answers))
        run(connection, "odd")
        slowest, threads, told = 0.0, 0, 0
        end = time.monotonic() + 8
        while time.monotonic() < end:
            began = time.monotonic()
            with suppress(DeadlineExceeded):  # a shim has two seconds, and the machine is busy
                connection.tasks.get(tasks_pb2.GetRequest(container_id="calm"), timeout=20)
                told += 1
            slowest = max(slowest, time.monotonic() - began)
            threads = max(threads, len(list(Path(f"/proc/{daemon.pid}/task").iterdir())))
            time.sleep(0.05)
        assert told > 3
        assert slowest < 15
        assert threads < 200
        assert _size(daemon.pid) - before < 64 << 10
        held.close()
        assert _end(connection, "odd") == 137
        assert _end(connection, "calm") == 137
        _remove(connection, "calm", "odd")


def test_events_that_are_none(daemon: StrangeOrlopd) -> None:
    """Whoever listens in the daemon hears on."""
    daemon.manners(Manners(babbles=True))
    with daemon.connect() as connection, listening(daemon) as heard:
        container(connection, "odd")
        run(connection, "odd")
        assert _end(connection, "odd") == 137
        daemon.wait_for(lambda: heard.counts["/tasks/delete", "odd"] == 1)
        assert "Traceback" not in daemon.log.read_text()
        _remove(connection, "odd")


def _size(pid: int) -> int:
    """Resident kilobytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


def test_what_cannot_be_run(daemon: StrangeOrlopd, tmp_path: Path) -> None:
    """Binaries that are missing, no programs, or folders."""
    text = tmp_path / "containerd-shim-text-v1"
    text.write_text("hello\n")
    script = tmp_path / "containerd-shim-script-v1"
    script.write_text("hello\n")
    script.chmod(0o755)
    with daemon.connect() as connection:
        container(connection, "odd")
        wrong = {
            str(tmp_path / "none"): "does not exist",
            str(tmp_path): "does not exist",
            str(text): "cannot be run: permission denied",
            str(script): "cannot be run: exec format error",
        }
        for path, said in wrong.items():
            with pytest.raises((Unknown, FailedPrecondition), match=said):
                create(connection, "odd", runtime_path=path)
            daemon.wait_for(lambda: _is_gone(daemon, 0))
        _remove(connection, "odd")
