"""The fork server and its workers, as processes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import NotFound, Unavailable
from orlop.fork.client import ForkServer
from orlop.fork.worker import MAX_MESSAGE, Worker
from orlop.rpc import CallContext
from orlop.runtime import Bundles
from orlop.runtime.forked import ForkedShims
from orlop.sys.process import mark
from tests.patience import patient, wait_for

HERE = "tests.integration.fork.test_fork_server"


def write_name(args: dict[str, Any], fds: list[int]) -> int:
    """A forked job: say who we are, through the descriptor that was passed."""
    name = Path("/proc/self/comm").read_text().strip()
    open_fds = len(list(Path("/proc/self/fd").iterdir()))
    os.write(fds[0], f"{args['word']} {name} {os.getsid(0) == os.getpid()} {open_fds}".encode())
    return 0


def add(args: dict[str, Any], fds: list[int], report: Callable[[Any], None]) -> int:
    for number in args["numbers"]:
        report(number)
    if args.get("fail"):
        raise NotFound('number "7"')
    return sum(args["numbers"])


def speak_at_length(args: dict[str, Any], fds: list[int], report: Callable[[Any], None]) -> str:
    report("a" * args["size"])
    return "b" * int(args["size"])


def sleep(args: dict[str, Any], fds: list[int], report: Callable[[Any], None]) -> None:
    report(os.getpid())
    time.sleep(60)


def linger(args: dict[str, Any], fds: list[int]) -> int:
    os.write(fds[0], b"x")
    time.sleep(60)
    return 0


def touch(args: dict[str, Any], fds: list[int]) -> int:
    Path(args["path"]).touch()
    return 0


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    server = ForkServer()
    server.start()
    yield server
    server.stop()


def test_a_child_has_its_descriptors_and_no_others(forks: ForkServer) -> None:
    for _ in range(2):
        read, write = os.pipe()
        forks.spawn(f"{HERE}:write_name", {"word": "ahoy"}, [write], name="orlop-test")
        os.close(write)
        word, name, leads, count = os.read(read, 100).decode().split()
        os.close(read)
        assert (word, name, leads) == ("ahoy", "orlop-test", "True")
        assert int(count) <= 5  # stdin, stdout, stderr, the pipe, and the folder being listed


def test_a_dead_server_is_replaced(forks: ForkServer) -> None:
    with Worker(forks, f"{HERE}:add", {"numbers": [1]}) as worker:
        assert worker.result() == 1
    assert forks.pid is not None
    first = forks.pid
    os.kill(first, signal.SIGKILL)
    with Worker(forks, f"{HERE}:add", {"numbers": [2]}) as worker:
        assert worker.result() == 2
    assert forks.pid != first


def test_a_worker_answers(forks: ForkServer) -> None:
    seen: list[int] = []
    with Worker(forks, f"{HERE}:add", {"numbers": [1, 2, 3]}) as worker:
        assert worker.result(seen.append) == 6
    assert seen == [1, 2, 3]


def test_a_worker_raises_what_its_job_raised(forks: ForkServer) -> None:
    with (
        Worker(forks, f"{HERE}:add", {"numbers": [], "fail": True}) as worker,
        pytest.raises(NotFound, match='number "7"'),
    ):
        worker.result()


@pytest.mark.parametrize("more", [-1, 0, 1, MAX_MESSAGE, 500_000])
def test_answers_are_as_long_as_they_are(forks: ForkServer, more: int) -> None:
    """Around what a packet holds: the quoted text, its key and the mark are 15 or 18 bytes more."""
    seen: list[str] = []
    for around in range(12, 21):
        size = MAX_MESSAGE - around + more
        with Worker(forks, f"{HERE}:speak_at_length", {"size": size}) as worker:
            assert worker.result(seen.append) == "b" * size
        assert seen.pop() == "a" * size


def test_a_killed_worker_is_told(forks: ForkServer) -> None:
    with Worker(forks, f"{HERE}:sleep", {}) as worker:
        threading.Timer(0.2, worker.cancel).start()
        with pytest.raises(Unavailable, match="died"):
            worker.result()


def test_leaving_ends_the_worker(forks: ForkServer) -> None:
    with Worker(forks, f"{HERE}:sleep", {}, name="asleep") as worker:
        pid = worker.pid
        assert forks.workers.read() == {("asleep",): 1}
    assert forks.workers.read() == {("asleep",): 0}
    worker.__exit__(None, None, None)
    assert forks.workers.read() == {("asleep",): 0}
    end = time.monotonic() + patient(20)
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_that_cannot_be_held_is_ended(
    forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked for it knows of none, and must find nobody at work where it wanted work done."""
    began: list[int] = []
    spawn = forks.spawn

    def told(*args: Any, **named: Any) -> int:
        began.append(spawn(*args, **named))
        return began[-1]

    monkeypatch.setattr(forks, "spawn", told)
    monkeypatch.setattr(os, "pidfd_open", _no_descriptor)
    before = _descriptors()
    with pytest.raises(Unavailable, match=r"cannot be held.*Too many open files"):
        Worker(forks, f"{HERE}:sleep", {})
    wait_for(lambda: not _runs(began[0]))  # its end is heard a moment before it is over
    assert _descriptors() <= before  # what was another test's may have gone


def _descriptors() -> set[str]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found.add(str(each.readlink()))
    return found


def test_a_shim_that_cannot_be_held_is_ended(
    forks: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("state", "root"):
        (tmp_path / name).mkdir()
    shims = ForkedShims(forks, tmp_path / "s", "/none")
    bundle = Bundles(tmp_path / "state", tmp_path / "root").create("ns", "one", b"{}")
    try:
        for spare in (True, False):
            deadline = time.monotonic() + patient(20)
            while spare and shims._spare._waiting is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with monkeypatch.context() as patch:
                patch.setattr(os, "pidfd_open", _no_descriptor)
                if not spare:
                    patch.setattr(shims._spare, "give", lambda *_: None)
                with pytest.raises(Unavailable, match="cannot be held") as caught:
                    shims.start(CallContext(), bundle, None)
            assert shims.sockets() == []
            pid = int(re.findall(r"pid=(\d+)", str(caught.value))[0])
            deadline = time.monotonic() + patient(20)
            while _session(pid):
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        shims.close()
        bundle.delete()


def _no_descriptor(pid: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _runs(pid: int) -> bool:
    return bool(mark(pid))


def _session(leader: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and _runs(int(each.name)):
            with contextlib.suppress(OSError):
                if os.getsid(int(each.name)) == leader:
                    found.append(int(each.name))
    return found


def test_workers_end_with_the_server(forks: ForkServer) -> None:
    with Worker(forks, f"{HERE}:sleep", {}) as worker:
        started = threading.Event()
        waiter = threading.Thread(target=_swallow, args=(worker, started))
        waiter.start()
        assert started.wait(patient(60))
        assert forks.pid is not None
        os.kill(forks.pid, signal.SIGKILL)
        waiter.join(patient(60))
        assert not waiter.is_alive()


def _swallow(worker: Worker, started: threading.Event) -> None:
    with pytest.raises(Unavailable, match="died"):
        worker.result(lambda _: started.set())


def test_other_children_outlive_the_server(forks: ForkServer) -> None:
    read, write = os.pipe()
    pid = forks.spawn(f"{HERE}:linger", {}, [write], name="orlop-test")
    os.close(write)
    assert os.read(read, 1) == b"x"
    forks.stop()
    try:
        assert Path(f"/proc/{pid}/comm").read_text() == "orlop-test\n"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(read)


def test_a_server_that_hangs_is_replaced(
    forks: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("orlop.fork.client._END", 0.2)
    for number in range(2):
        mark = tmp_path / str(number)
        assert forks.spawn(f"{HERE}:touch", {"path": str(mark)}, name="orlop-test") > 0
        deadline = time.monotonic() + patient(20)
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if number == 0:
            first = forks.pid
            assert first is not None and forks._control is not None
            forks._control.settimeout(0.5)
            os.kill(first, signal.SIGSTOP)
    assert forks.pid != first


@pytest.mark.parametrize("told", [True, False])
def test_a_child_that_nobody_was_told_of_does_not_begin(tmp_path: Path, told: bool) -> None:
    """Its like is forked again by the next server, and would have the same descriptors."""
    mark = tmp_path / "began"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, (tmp_path / "errors").open("w+b") as errors:
        argv = [sys.executable, "-m", "orlop.fork.server", str(theirs.fileno())]
        server = subprocess.Popen(
            argv,
            pass_fds=[theirs.fileno()],
            stderr=errors,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        theirs.close()
        assert json.loads(ours.recv(100)) == {"ready": True}
        request = {"entry": f"{HERE}:touch", "args": {"path": str(mark)}, "name": "orlop-test"}
        os.kill(server.pid, signal.SIGSTOP)
        ours.send(json.dumps(request).encode())
        if not told:
            ours.close()
        os.kill(server.pid, signal.SIGCONT)
        if told:
            assert "pid" in json.loads(ours.recv(100))
            ours.close()
        assert server.wait(patient(60)) == 0
        deadline = time.monotonic() + (patient(60) if told else 0.5)
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mark.exists() == told
        errors.seek(0)
        assert errors.read() == b""


LIMITED = """
import resource
from orlop.fork.client import ForkServer
from orlop.sys.limits import use_all_descriptors
from orlop.sys.program import Program

use_all_descriptors()
forks = ForkServer()
forks.start()
print(resource.prlimit(forks.pid, resource.RLIMIT_NOFILE)[0])
forks.stop()
print(Program(["sh", "-c", "sleep 0.5; ulimit -n"], b"").result(10).stdout.decode())
"""


def test_a_limit_that_its_owner_has_raised_is_not_inherited() -> None:
    """Neither by a fork server that replaces one from before, nor by programs."""
    command = ["sh", "-c", 'ulimit -Sn 300 && exec "$0" -c "$1"', sys.executable, LIMITED]
    done = subprocess.run(command, check=True, capture_output=True, timeout=patient(30))
    assert done.stdout.split() == [b"300", b"300"]
