"""What happens while a shim sleeps, and as it wakes up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orlop import errors
from orlop.fork.client import ForkServer
from orlop.logger.options import NAME as LOGGER
from orlop.logger.options import Options as LogOptions
from orlop.rpc.convert import pack
from orlop.wire.runc_pb2 import Options
from orlop.wire.task_types_pb2 import Status
from orlop.wire.task_v2_pb2 import StateResponse
from tests.integration.shim.harness import (
    IMPATIENCE,
    NAMESPACE,
    RUNC_ROOT,
    Shim,
    name_of,
    process_exists,
    wait_until,
)
from tests.integration.shim.test_lifecycle import waited
from tests.integration.shim.test_stdio import reading
from tests.killing import kill

pytestmark = pytest.mark.root


def test_it_sleeps_and_wakes(shim: Shim) -> None:
    pid = shim.create("one", ["sleep", "1000"])
    shim.fall_asleep()
    assert shim.client.state(id="one").status == Status.CREATED
    shim.client.start(id="one")
    shim.fall_asleep()
    state = shim.client.state(id="one")
    assert (state.pid, state.status) == (pid, Status.RUNNING)
    shim.fall_asleep()
    assert shim.client.connect(id="one").shim_pid == shim.pid
    shim.client.pause(id="one")
    shim.fall_asleep()
    assert shim.client.state(id="one").status == Status.PAUSED
    shim.client.resume(id="one")
    shim.fall_asleep()
    shim.finish("one")


def test_an_exit_wakes_it_and_is_told_once(shim: Shim) -> None:
    pid = shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    waiting = shim.client.begin("wait", id="one")
    shim.fall_asleep()
    before = time.time_ns()
    kill(pid)
    assert waited(waiting.result(60)) == 128 + signal.SIGKILL
    shim.fall_asleep()
    answer = shim.client.delete(id="one")
    assert answer.exited_at.ToNanoseconds() >= before
    topics = [topic for topic, _ in shim.daemon.wait_for(4)]
    assert topics == ["create", "start", "exit", "delete"]


def test_waits_outlive_the_hand_and_end_with_their_client(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    other = shim.connect()
    lost = other.begin("wait", id="one")
    kept = shim.client.begin("wait", id="one")
    shim.fall_asleep()
    other.close()
    with pytest.raises(ConnectionError):
        lost.result(60)
    shim.fall_asleep()
    assert not kept.done()
    shim.finish("one")
    assert waited(kept.result(60)) == 128 + signal.SIGKILL


def test_streams_go_on(shim: Shim) -> None:
    stdin, stdout, stderr = (shim.fifo(name) for name in "ioe")
    out, err = reading(stdout), reading(stderr)
    script = "while read line; do echo out $line; echo err $line >&2; done"
    shim.create("one", ["sh", "-c", script], stdin=stdin, stdout=stdout, stderr=stderr)
    shim.client.start(id="one")
    with Path(stdin).open("wb", buffering=0) as keyboard:
        for word in (b"a\n", b"b\n"):
            time.sleep(0.4)  # for the pump, which opens its end a moment after the creation
            shim.fall_asleep()
            keyboard.write(word)
    shim.fall_asleep()
    shim.client.close_io(id="one", stdin=True)
    waited(shim.client.begin("wait", id="one").result(60))
    shim.fall_asleep()
    shim.client.delete(id="one")
    assert out() == b"out a\nout b\n"
    assert err() == b"err a\nerr b\n"


def test_a_terminal_goes_on(shim: Shim) -> None:
    stdin, stdout = shim.fifo("i"), shim.fifo("o")
    out = reading(stdout)
    shim.create("one", ["sh"], terminal=True, stdin=stdin, stdout=stdout)
    shim.client.start(id="one")
    time.sleep(0.4)
    shim.fall_asleep()
    shim.client.resize_pty(id="one", width=77, height=33)
    shim.fall_asleep()
    with Path(stdin).open("wb", buffering=0) as keyboard:
        keyboard.write(b"stty size\n")
        shim.fall_asleep()
        keyboard.write(b"exit 4\n")
    assert waited(shim.client.begin("wait", id="one").result(60)) == 4
    shim.client.delete(id="one")
    assert b"33 77" in out()


def test_a_logger_goes_on(shim: Shim, folder: Path) -> None:
    kept, program = folder / "kept", folder / "logger"
    program.write_text(f"#!/bin/sh\nexec 5>&-\nexec cat <&3 >{kept}\n")
    program.chmod(0o755)
    shim.create("one", ["sh", "-c", "echo early; sleep 60"], stdout=f"binary://{program}")
    shim.client.start(id="one")
    shim.fall_asleep()
    wait_until(lambda: kept.exists() and kept.read_bytes() == b"early\n")
    shim.exec("one", "two", ["echo", "hello"], stdout=f"binary://{program}")
    waiting = shim.client.begin("wait", id="one", exec_id="two")
    shim.client.start(id="one", exec_id="two")
    waiting.result(60)
    shim.fall_asleep()
    shim.client.delete(id="one", exec_id="two")
    assert kept.read_bytes() == b"hello\n"
    shim.finish("one")


def test_execs_are_remembered(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    shim.exec("one", "added", ["sh", "-c", "exit 5"])
    shim.exec("one", "running", ["sleep", "1000"])
    shim.client.start(id="one", exec_id="running")
    shim.fall_asleep()
    assert shim.client.state(id="one", exec_id="added").status == Status.CREATED
    waiting = shim.client.begin("wait", id="one", exec_id="added")
    shim.fall_asleep()
    shim.client.start(id="one", exec_id="added")
    assert waited(waiting.result(60)) == 5
    shim.fall_asleep()
    assert shim.client.state(id="one", exec_id="added").exit_status == 5
    shim.client.delete(id="one", exec_id="added")
    shim.client.kill(id="one", exec_id="running", signal=9)
    running = shim.client.begin("wait", id="one", exec_id="running")
    assert waited(running.result(60)) == 128 + signal.SIGKILL
    shim.finish("one")


def test_memory_that_runs_out(shim: Shim) -> None:
    limit = {"memory": {"limit": 16 << 20}}
    script = "sleep 60 & read x </dev/zero || true; wait"
    shim.create("one", ["sh", "-c", script], resources=limit)
    shim.client.start(id="one")
    shim.fall_asleep()
    shim.exec("one", "hog", ["sh", "-c", "x=a; while true; do x=$x$x; done"])
    shim.client.start(id="one", exec_id="hog")
    topics = {topic for topic, _ in shim.daemon.wait_for(6)}
    assert "oom" in topics
    shim.finish("one")


@pytest.fixture
def doomed(fork_server: ForkServer, folder: Path, rootfs: Path) -> Iterator[Shim]:
    """A shim that need not live to the end of its test."""
    shim = Shim(fork_server, folder, rootfs)
    yield shim
    shim.close()


def test_a_hand_that_is_killed_takes_the_shim_along(doomed: Shim) -> None:
    doomed.create("one", ["sleep", "1000"])
    doomed.client.start(id="one")
    doomed.fall_asleep()
    waiting = doomed.client.begin("wait", id="one")

    killed = False
    while not killed:
        with suppress(ProcessLookupError):  # it has just gone by itself
            kill(_woken(doomed))
            killed = True
    wait_until(lambda: not process_exists(doomed.pid))
    with pytest.raises(ConnectionError):
        waiting.result(60)


def test_a_hand_ends_with_its_keeper(doomed: Shim) -> None:
    hand = _woken(doomed)
    kill(doomed.pid)
    wait_until(lambda: not process_exists(hand))


def _woken(shim: Shim) -> int:
    """The hand of a shim that has just been asked something, which goes in a second."""
    found: list[int] = []

    def awake() -> bool:
        shim.client.connect(id="none")
        found.append(shim.hand)
        return bool(found[-1])

    wait_until(awake)
    return found[-1]


def test_a_stop_signal_ends_only_an_unused_shim(doomed: Shim) -> None:
    doomed.create("one", ["sleep", "1000"])
    doomed.fall_asleep()
    kill(doomed.pid, signal.SIGTERM)
    assert doomed.client.state(id="one").status == Status.CREATED
    doomed.finish("one")
    doomed.fall_asleep()
    kill(doomed.pid, signal.SIGTERM)
    wait_until(lambda: not process_exists(doomed.pid))


def test_exits_that_come_just_as_the_hand_goes(shim: Shim) -> None:
    for number in range(40):
        name = f"c{number}"
        pid = shim.create(name, ["sleep", "1000"])
        shim.client.start(id=name)
        waiting = shim.client.begin("wait", id=name)
        time.sleep(IMPATIENCE * number / 20)
        kill(pid)
        assert waited(waiting.result(60)) == 128 + signal.SIGKILL
        shim.client.delete(id=name)
    events = [topic for topic, _ in shim.daemon.wait_for(160)]
    assert events == ["create", "start", "exit", "delete"] * 40


def test_a_shim_that_finds_no_room_for_a_hand_waits_for_it(doomed: Shim) -> None:
    top = Path("/sys/fs/cgroup")
    group = (top / "pids" if (top / "pids").exists() else top) / f"{NAMESPACE}-full"
    doomed.create("one", ["sleep", "1000"])
    doomed.fall_asleep()
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(doomed.pid))
        (group / "pids.max").write_text("1")
        waiting = doomed.client.begin("state", id="one")
        refused = group / "pids.events"
        wait_until(lambda: refused.read_text() != "max 0\n")
        (group / "pids.max").write_text("max")
        assert StateResponse.FromString(waiting.result(60)).status == Status.CREATED
        doomed.finish("one")
        doomed.shutdown()
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_what_it_logs_waits_for_a_reader(
    fork_server: ForkServer, folder: Path, rootfs: Path
) -> None:
    os.mkfifo(folder / "log")
    shim = Shim(fork_server, folder, rootfs, patience=IMPATIENCE)
    try:
        log = LogOptions(str(folder / "kept")).uri
        shim.create("one", ["sleep", "1000"], stdout=log)
        shim.client.start(id="one")
        shim.fall_asleep()
        (logger,) = (pid for pid in shim.helpers if name_of(pid) == LOGGER)
        kill(logger)
        wait_until(lambda: any(name_of(pid) == LOGGER for pid in shim.helpers if pid != logger))
        shim.fall_asleep()
        reader = os.open(folder / "log", os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert b"logger has ended" in os.read(reader, 4096)
        finally:
            os.close(reader)
        shim.finish("one")
        shim.shutdown()
    finally:
        shim.close()


def test_a_delete_that_fails_leaves_what_can_be_deleted(shim: Shim, folder: Path) -> None:
    runtime, logger, broken = (folder / name for name in ("runtime", "logger", "broken"))
    runtime.write_text(
        f'#!/bin/sh\ncase "$*" in *" delete "*) test ! -e {broken} || exit 1;; esac\n'
        'exec runc "$@"\n'
    )
    logger.write_text("#!/bin/sh\nexec 5>&-\nexec cat <&3 >/dev/null\n")
    for program in (runtime, logger):
        program.chmod(0o755)
    for name, streams in (
        ("terminal", {"terminal": True, "stdout": f"binary://{logger}"}),
        ("shared", {"stdout": f"attach+binary://{logger}"}),
    ):
        options = pack(Options(binary_name=str(runtime)))
        shim.create(name, ["true"], options=options, **streams)
        waiting = shim.client.begin("wait", id=name)
        shim.client.start(id=name)
        waiting.result(60)
        stranger = Path(RUNC_ROOT, name, "stranger")  # so that the runtime must delete
        stranger.touch()
        broken.touch()
        with pytest.raises(errors.Unknown):
            shim.client.delete(id=name)
        broken.unlink()
        shim.fall_asleep()
        assert shim.client.state(id=name).status == Status.STOPPED
        shim.client.delete(id=name)


def test_the_cgroup_of_a_shim_holds_both_processes(doomed: Shim) -> None:
    group = f"{NAMESPACE}-shim"
    doomed.create("one", ["sleep", "1000"], options=pack(Options(shim_cgroup=f"/{group}")))
    folders = list(Path("/sys/fs/cgroup").glob(f"*/{group}"))
    members: list[set[str]] = []

    def both() -> bool:
        doomed.client.connect(id="one")  # there is a hand now, for a second
        members[:] = [set((each / "cgroup.procs").read_text().split()) for each in folders]
        return all(len(each) == 2 for each in members)

    wait_until(both)
    doomed.finish("one")
    doomed.shutdown()
    for each in folders:
        wait_until(lambda each=each: not (each / "cgroup.procs").read_text())  # type: ignore[misc]
        each.rmdir()
    assert members
    assert all(str(doomed.pid) in each and len(each) == 2 for each in members)


def test_what_does_not_exist_is_told_after_a_sleep(shim: Shim) -> None:
    shim.fall_asleep()
    with pytest.raises(errors.NotFound):
        shim.client.state(id="none")
