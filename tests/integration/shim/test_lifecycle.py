"""Containers and execs from create to delete, driven over the shim's own socket."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from orlop import errors
from orlop.fork.client import ForkServer
from orlop.rpc.convert import nanoseconds
from orlop.wire import task_v2_pb2 as task
from orlop.wire.cgroups_v1_pb2 import Metrics
from orlop.wire.runc_pb2 import Options, ProcessDetails
from orlop.wire.task_types_pb2 import Status
from tests.integration.shim.harness import (
    NAMESPACE,
    Client,
    Shim,
    leftovers,
    names,
    process_exists,
    wait_until,
)
from tests.patience import patient

pytestmark = pytest.mark.root


def waited(payload: bytes) -> int:
    return task.WaitResponse.FromString(payload).exit_status


def test_full_life(shim: Shim) -> None:
    before = time.time_ns()
    pid = shim.create("one", ["sh", "-c", "exit 3"])
    state = shim.client.state(id="one")
    assert (state.status, state.pid, state.id) == (Status.CREATED, pid, "one")
    assert nanoseconds(state.exited_at) == 0
    assert state.exited_at.seconds < 0  # Go's zero time, not 1970
    waiters = [shim.client.begin("wait", id="one") for _ in range(5)]
    assert shim.client.start(id="one").pid == pid
    assert [waited(waiter.result(60)) for waiter in waiters] == [3] * 5
    assert waited(shim.client.begin("wait", id="one").result(60)) == 3
    state = shim.client.state(id="one")
    assert (state.status, state.exit_status) == (Status.STOPPED, 3)
    deleted = shim.client.delete(id="one")
    assert (deleted.pid, deleted.exit_status) == (pid, 3)
    assert before < nanoseconds(deleted.exited_at) < time.time_ns()
    topics = shim.daemon.wait_for(4)
    assert [topic for topic, _ in topics] == ["create", "start", "exit", "delete"]
    assert {message.container_id for _, message in topics} == {"one"}
    assert topics[2][1].id == "one"
    with pytest.raises(errors.NotFound):
        shim.client.state(id="one")


def test_version_two_is_the_same(shim: Shim) -> None:
    client = shim.connect("containerd.task.v2.Task")
    assert client.connect(id="none").shim_pid == shim.pid
    with pytest.raises(errors.Unimplemented):
        shim.connect("containerd.task.v9.Task").connect(id="none")
    with pytest.raises(errors.Unimplemented):
        client.send("Frobnicate", b"").result(60)


def test_a_bundle_that_is_named_by_a_link(shim: Shim) -> None:
    """As in /var/run of a daemon that names its state so."""
    bundle = shim.bundle("one", ["true"])
    (shim.folder / "link").symlink_to(shim.folder)
    root = {"type": "bind", "source": str(shim.rootfs), "options": ["rbind", "ro"]}
    shim.client.create(id="one", bundle=str(shim.folder / "link/one"), rootfs=[root])
    assert f" {bundle}/rootfs " in Path("/proc/self/mountinfo").read_text()
    shim.client.delete(id="one")
    assert f" {bundle}/rootfs " not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(("signal", "status"), [(9, 137), (15, 143)])
def test_signals_end_in_128_and_more(shim: Shim, signal: int, status: int) -> None:
    up = shim.folder / "up"
    script = "trap 'exit 143' TERM; echo up; while :; do sleep 0.1; done"
    shim.create("one", ["sh", "-c", script], stdout=f"file://{up}")
    shim.client.start(id="one")
    waiting = shim.client.begin("wait", id="one")
    wait_until(lambda: up.read_text() == "up\n")
    shim.client.kill(id="one", signal=signal)
    assert waited(waiting.result(60)) == status
    with pytest.raises(errors.NotFound, match="process already finished"):
        shim.client.kill(id="one", signal=9)
    shim.client.delete(id="one")


def test_what_a_state_forbids(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    with pytest.raises(errors.OrlopError, match="cannot pause"):
        shim.client.pause(id="one")
    shim.client.start(id="one")
    with pytest.raises(errors.OrlopError, match="cannot start a running process"):
        shim.client.start(id="one")
    with pytest.raises(errors.OrlopError, match="cannot delete a running process"):
        shim.client.delete(id="one")
    with pytest.raises(errors.OrlopError, match="cannot resume a running process"):
        shim.client.resume(id="one")
    with pytest.raises(errors.AlreadyExists):
        shim.client.create(id="one", bundle=str(shim.folder / "one"))
    with pytest.raises(errors.InvalidArgument, match="is not absolute"):
        shim.client.checkpoint(id="one", path="images")
    shim.client.shutdown(id="one")  # no effect while there is a container
    assert shim.client.connect(id="one").task_pid > 0
    shim.finish("one")


def test_created_but_never_started(shim: Shim) -> None:
    pid = shim.create("one", ["true"])
    waiting = shim.client.begin("wait", id="one")
    assert shim.client.delete(id="one").exit_status == 137
    assert waited(waiting.result(60)) == 137
    assert not process_exists(pid)
    assert shim.daemon.topics(3) == ["create", "exit", "delete"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_command_that_does_not_exist(shim: Shim, terminal: bool) -> None:
    with pytest.raises(errors.Unknown, match=r'exec: "nope": executable file not found in \$PATH'):
        out, err = shim.fifo("out"), "" if terminal else shim.fifo("err")
        shim.create("one", ["nope"], terminal=terminal, stdout=out, stderr=err)
    assert leftovers(shim.folder) == {"mounts": [], "cgroups": [], "runc": []}
    with pytest.raises(errors.NotFound):
        shim.client.state(id="one")
    assert names(shim.folder / "one/rootfs") == set()
    assert names(shim.folder / "one") == {"config.json", "rootfs", "options.json"}
    assert shim.daemon.topics(1, timeout=0.3) == []


def test_a_create_that_cannot_work(shim: Shim) -> None:
    with pytest.raises(errors.NotFound, match="/nowhere"):
        shim.create("fifo", ["true"], stdout="/nowhere/at/all")
    with pytest.raises(errors.InvalidArgument, match="scheme"):
        shim.create("scheme", ["true"], stdout="gopher://x")
    with pytest.raises(errors.Unknown, match="mount rootfs"):
        bundle = shim.bundle("mount", ["true"])
        mount = {"type": "bind", "source": "/nowhere", "options": ["rbind"]}
        shim.client.create(id="mount", bundle=str(bundle), rootfs=[mount])
    options = Options(binary_name="/nowhere/runc")
    with pytest.raises(errors.Unknown, match="/nowhere/runc"):
        shim.create("binary", ["true"], options=packed(options))
    with pytest.raises(errors.InvalidArgument, match="options"):
        shim.create("options", ["true"], options=AnyMessage(type_url="x.Other"))
    with pytest.raises(errors.InvalidArgument):
        shim.client.create(id="../up", bundle="/tmp")
    with pytest.raises(errors.FailedPrecondition, match="bundle"):
        shim.client.create(id="bundle", bundle="/nowhere")
    assert leftovers(shim.folder) == {"mounts": [], "cgroups": [], "runc": []}


def packed(options: Options) -> AnyMessage:
    return AnyMessage(type_url="containerd.runc.v1.Options", value=options.SerializeToString())


def test_runtime_options(shim: Shim) -> None:
    root = shim.folder / "runc-state"
    options = Options(binary_name="/usr/sbin/runc", root=str(root), no_new_keyring=True, io_uid=7)
    shim.create("one", ["sleep", "1000"], options=packed(options), stdout=shim.fifo("out"))
    assert names(root / NAMESPACE) == {"one"}
    assert (shim.folder / "out").stat().st_uid in (0, 7)  # runc gives it to the process's user
    shim.finish("one")


def test_exec(shim: Shim) -> None:
    init = shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    shim.exec("one", "two", ["sh", "-c", "exit 7"])
    with pytest.raises(errors.AlreadyExists):
        shim.exec("one", "two", ["true"])
    assert shim.client.state(id="one", exec_id="two").status == Status.CREATED
    with pytest.raises(errors.FailedPrecondition):
        shim.client.kill(id="one", exec_id="two", signal=9)
    waiting = shim.client.begin("wait", id="one", exec_id="two")
    pid = shim.client.start(id="one", exec_id="two").pid
    assert waited(waiting.result(60)) == 7
    with pytest.raises(errors.NotFound, match="process already finished"):
        shim.client.kill(id="one", exec_id="two", signal=9)
    deleted = shim.client.delete(id="one", exec_id="two")
    assert (deleted.pid, deleted.exit_status) == (pid, 7)
    with pytest.raises(errors.NotFound):
        shim.client.state(id="one", exec_id="two")
    shim.finish("one")
    topics = shim.daemon.wait_for(7)
    order = [topic for topic, _ in topics]
    assert order == ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"]
    assert (topics[4][1].id, topics[4][1].pid, topics[5][1].pid) == ("two", pid, init)
    assert not list((shim.folder / "one").glob(".*"))


def test_an_exec_that_cannot_start(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    shim.exec("one", "two", ["nope"])
    with pytest.raises(
        errors.Unknown, match=r"OCI runtime exec failed: .*executable file not found"
    ):
        shim.client.start(id="one", exec_id="two")
    assert shim.client.state(id="one", exec_id="two").status == Status.STOPPED
    shim.client.delete(id="one", exec_id="two")
    assert shim.client.pids(id="one").processes[0].info.type_url == ""
    shim.finish("one")


@pytest.mark.parametrize("spec", [b"", b"not JSON", b"[]"])
def test_an_exec_of_nonsense(shim: Shim, spec: bytes) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    with pytest.raises(errors.InvalidArgument, match='exec "two"'):
        shim.client.exec(id="one", exec_id="two", spec={"type_url": "x", "value": spec})
    shim.finish("one")


def test_an_exec_is_killed(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    shim.exec("one", "two", ["sleep", "1000"])
    pid = shim.client.start(id="one", exec_id="two").pid
    infos = {entry.pid: entry.info for entry in shim.client.pids(id="one").processes}
    assert len(infos) == 2
    assert infos[pid].type_url == "containerd.runc.v1.ProcessDetails"
    assert ProcessDetails.FromString(infos[pid].value).exec_id == "two"
    waiting = shim.client.begin("wait", id="one", exec_id="two")
    shim.client.kill(id="one", exec_id="two", signal=9)
    assert waited(waiting.result(60)) == 137
    shim.finish("one")


def test_many_execs_at_once(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")

    def run(number: int) -> int:
        exec_id = f"exec-{number}"
        shim.exec("one", exec_id, ["sh", "-c", f"exit {number}"])
        waiting = shim.client.begin("wait", id="one", exec_id=exec_id)
        shim.client.start(id="one", exec_id=exec_id)
        code = waited(waiting.result(60))
        shim.client.delete(id="one", exec_id=exec_id)
        return code

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(run, range(100))) == list(range(100))
    started = time.monotonic()
    shim.client.state(id="one")
    assert time.monotonic() - started < patient(5)
    shim.finish("one")
    order: dict[str, list[str]] = {}
    for topic, message in shim.daemon.wait_for(304):
        key = getattr(message, "exec_id", "") or getattr(message, "id", "")
        order.setdefault(key, []).append(topic)
    assert order["exec-42"] == ["exec-added", "exec-started", "exit"]
    shim.fall_asleep()
    assert len(names(Path(f"/proc/{shim.pid}/fd"))) < 20


def test_the_init_exits_last(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    for number in range(5):
        shim.exec("one", f"exec-{number}", ["sleep", "1000"])
        shim.client.start(id="one", exec_id=f"exec-{number}")
    shim.finish("one")
    exits = [message.id for topic, message in shim.daemon.wait_for(18) if topic == "exit"]
    assert len(exits) == 6
    assert exits[-1] == "one"


def test_a_shared_pid_namespace_leaves_nobody_behind(shim: Shim) -> None:
    namespaces = ("ipc", "uts", "mount", "network")
    naptime = f"1234{os.getpid()}"
    script = f"sleep {naptime} & exit 0"
    shim.create("one", ["sh", "-c", script], namespaces=namespaces)
    shim.exec("one", "two", ["sleep", naptime])
    shim.client.start(id="one", exec_id="two")
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    assert waited(waiting.result(60)) == 0
    shim.client.delete(id="one")
    exits = [message.id for topic, message in shim.daemon.wait_for(7) if topic == "exit"]
    assert exits == ["two", "one"]
    assert ["sleep", naptime] not in command_lines()


def command_lines() -> list[list[str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # a process that ended meanwhile
            found.append(path.read_text().split("\0")[:-1])
    return found


def test_pause_resume_and_kill_while_paused(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    shim.exec("one", "two", ["sleep", "1000"])
    shim.client.start(id="one", exec_id="two")
    shim.client.pause(id="one")
    assert shim.client.state(id="one").status == Status.PAUSED
    assert shim.client.state(id="one", exec_id="two").status == Status.PAUSED
    with pytest.raises(errors.OrlopError, match="cannot delete a paused process"):
        shim.client.delete(id="one")
    with pytest.raises(errors.OrlopError, match="paused"):
        shim.exec("one", "three", ["true"])
    shim.client.resume(id="one")
    assert shim.client.state(id="one").status == Status.RUNNING
    shim.client.pause(id="one")
    assert shim.finish("one").exit_status == 137
    topics = shim.daemon.topics(10)
    assert topics[4:7] == ["paused", "resumed", "paused"]


MOMENTARY = """#!/bin/sh
# As runc, after the first answers that it gives when another process is in its way.
case " $* " in *" COMMAND "*)
    echo >> TRIES
    if [ "$(wc -l < TRIES)" -lt 3 ]; then
        echo '{"level": "error", "msg": "SAID"}' > "$4"
        exit 1
    fi
esac
exec runc "$@"
"""


def busy_for_a_moment(shim: Shim, command: str, said: str) -> Callable[[], int]:
    """A container whose runtime fails twice in a command; how often that was called."""
    program, tries = shim.folder / "runtime", shim.folder / "tries"
    text = MOMENTARY.replace("COMMAND", command).replace("SAID", said)
    program.write_text(text.replace("TRIES", str(tries)))
    program.chmod(0o755)
    shim.create("one", ["sleep", "1000"], options=packed(Options(binary_name=str(program))))
    shim.client.start(id="one")
    return lambda: tries.read_text().count("\n")


@pytest.mark.parametrize("said", ["unable to freeze", "unexpected state THAWED while freezing"])
def test_a_pause_while_something_is_forked_inside(shim: Shim, said: str) -> None:
    calls = busy_for_a_moment(shim, "pause", said)
    shim.client.pause(id="one")
    assert calls() == 3
    assert shim.client.state(id="one").status == Status.PAUSED
    shim.finish("one")


def test_a_pause_that_cannot_be_is_not_tried_again(shim: Shim) -> None:
    calls = busy_for_a_moment(shim, "pause", "no freezer here")
    with pytest.raises(errors.Unknown, match="no freezer here"):
        shim.client.pause(id="one")
    assert calls() == 1
    shim.finish("one")


def test_a_kill_while_a_cgroup_inside_goes(shim: Shim) -> None:
    calls = busy_for_a_moment(shim, "kill", "read cgroup.procs: no such device")
    waiting = shim.client.begin("wait", id="one")
    shim.client.kill(id="one", signal=9, all=True)
    assert calls() == 3
    assert waited(waiting.result(60)) == 137
    shim.client.delete(id="one")


def test_update_and_stats(shim: Shim) -> None:
    memory = {"memory": {"limit": 64 << 20}}
    shim.create("one", ["sleep", "1000"], resources=memory)
    shim.client.start(id="one")
    shim.client.update(
        id="one",
        resources={
            "type_url": "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
            "value": b'{"memory": {"limit": 33554432}, "pids": {"limit": 50}}',
        },
    )

    def measured() -> Metrics:
        packed = shim.client.stats(id="one").stats
        assert packed.type_url == "io.containerd.cgroups.v1.Metrics"
        return Metrics.FromString(packed.value)

    wait_until(lambda: measured().pids.current == 1)  # runc's init has become the program
    metrics = measured()
    assert metrics.memory.usage.limit == 32 << 20
    assert metrics.memory.usage.usage > 0
    assert metrics.pids.limit == 50
    assert metrics.cpu.usage.total > 0
    shim.finish("one")
    with pytest.raises(errors.NotFound):
        shim.client.stats(id="one")


def test_out_of_memory_is_told(shim: Shim) -> None:
    limits = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
    shim.create(
        "one", ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=50M count=1; true"], resources=limits
    )
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    waiting.result(20)
    shim.client.delete(id="one")
    assert "oom" in shim.daemon.topics(5, timeout=60)


def test_a_checkpoint_on_a_full_disk_is_not_begun(shim: Shim) -> None:
    """It could end the container, and then not be written to its end."""
    program, disk, begun = (shim.folder / name for name in ("runtime", "disk", "begun"))
    runtime = f"case ' $* ' in *' checkpoint '*) mkdir -p {disk}/images; : > {begun}; exit; esac"
    program.write_text(f'#!/bin/sh\n{runtime}\nexec runc "$@"\n')
    program.chmod(0o755)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full", disk], check=True)
    try:
        (disk / "full").write_bytes(bytes(4096))
        shim.create("one", ["sleep", "1000"], options=packed(Options(binary_name=str(program))))
        shim.client.start(id="one")
        with pytest.raises(errors.Unknown, match=r"(?i)no space left"):
            shim.client.checkpoint(id="one", path=str(disk / "images"))
        assert not begun.exists()
        assert names(disk) == {"full"}
        shim.finish("one")
    finally:
        unmount(disk)


def test_a_checkpoint_that_fails_spoils_no_older_one(shim: Shim) -> None:
    """What a restore of the older one needs stays as it is."""
    program, images = shim.folder / "runtime", shim.folder / "images"
    fails = f"case ' $* ' in *' checkpoint '*) : > {images}/half-made.img; exit 1; esac"
    program.write_text(f'#!/bin/sh\n{fails}\nexec runc "$@"\n')
    program.chmod(0o755)
    images.mkdir()
    (images / "orlop.json").write_text("of the older one")
    shim.create("one", ["sleep", "1000"], options=packed(Options(binary_name=str(program))))
    shim.client.start(id="one")
    with pytest.raises(errors.Unknown, match="checkpoint failed"):
        shim.client.checkpoint(id="one", path=str(images))
    assert names(images) == {"orlop.json"}
    assert (images / "orlop.json").read_text() == "of the older one"
    shim.finish("one")


UNWATCHED = """#!/bin/sh
runc "$@" || exit
case " $* " in *" create "*)
    for file in /sys/fs/cgroup/memory/GROUP/cgroup.event_control /sys/fs/cgroup/GROUP/memory.events
    do [ ! -e "$file" ] || mount --bind SOCKET "$file"; done
esac
"""


def test_where_out_of_memory_cannot_be_told_containers_run(shim: Shim) -> None:
    """The file by which it is watched cannot be opened when the container has been made."""
    program, path = shim.folder / "runtime", shim.folder / "socket"
    group = f"{NAMESPACE}/one"
    program.write_text(UNWATCHED.replace("GROUP", group).replace("SOCKET", str(path)))
    program.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        try:
            options = Options(binary_name=str(program))
            shim.create("one", ["sleep", "1000"], options=packed(options))
            shim.client.start(id="one")
        finally:
            hidden = (f"memory/{group}/cgroup.event_control", f"{group}/memory.events")
            made = [unmount(Path("/sys/fs/cgroup") / each) for each in hidden]
    assert any(made)
    shim.finish("one")


def unmount(path: Path) -> bool:
    """Whether there was something to unmount."""
    return subprocess.run(["umount", path], check=False, capture_output=True).returncode == 0


def test_several_containers_in_one_shim(shim: Shim) -> None:
    for name in ("one", "two", "three"):
        shim.create(name, ["sleep", "1000"])
        shim.client.start(id=name)
    shim.finish("two")
    shim.client.shutdown(id="two")
    assert shim.client.state(id="one").status == Status.RUNNING
    shim.finish("one")
    shim.finish("three")


def test_events_wait_for_the_daemon(fork_server: ForkServer, folder: Path, rootfs: Path) -> None:
    shim = Shim(fork_server, folder, rootfs, daemon=False)
    try:
        shim.create("one", ["true"])
        waiting = shim.client.begin("wait", id="one")
        shim.client.start(id="one")
        waiting.result(60)
        time.sleep(0.5)
        shim.daemon.start()
        Client(shim.path).close()  # a daemon that is back finds its shims: no need to wait
        assert shim.daemon.topics(3, timeout=60) == ["create", "start", "exit"]
        shim.daemon.stop()
        shim.client.delete(id="one")
        shim.daemon.start()
        assert shim.daemon.topics(4) == ["create", "start", "exit", "delete"]
        shim.shutdown()
    finally:
        shim.close()


def test_bad_frames_end_their_own_connection_only(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    waiting = shim.client.begin("wait", id="one")
    other = shim.connect()
    other.talks_nonsense = True
    other.socket.sendall(os.urandom(4096))
    other.close()
    bad = shim.connect()
    with pytest.raises(errors.InvalidArgument):
        bad.send("State", b"\xff\xff\xff").result(60)
    gone = shim.connect()
    gone.begin("wait", id="one")
    gone.close()
    assert not waiting.done()
    with pytest.raises(errors.DeadlineExceeded):
        shim.client.send("Wait", task.WaitRequest(id="one").SerializeToString(), 0.2).result(60)
    shim.finish("one")
    assert waited(waiting.result(60)) == 137


def test_a_terminated_shim_stays_while_it_holds_containers(shim: Shim) -> None:
    shim.create("one", ["true"])
    os.kill(shim.pid, 15)
    time.sleep(0.2)
    assert process_exists(shim.pid)
    shim.finish("one")
    os.kill(shim.pid, 15)
    wait_until(lambda: not process_exists(shim.pid))
    shim.shutdown = lambda: None  # type: ignore[method-assign]
