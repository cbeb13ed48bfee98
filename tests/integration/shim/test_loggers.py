"""Logger processes: the contract, and what happens when they do not keep it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from orlop import errors
from orlop.fork.client import ForkServer
from orlop.logger.options import Options
from orlop.shim.cleanup import cleanup
from orlop.wire import task_v2_pb2 as task
from tests.integration.shim.harness import (
    NAMESPACE,
    Shim,
    leftovers,
    name_of,
    process_exists,
    wait_until,
)

pytestmark = pytest.mark.root

MEMORY_KILOBYTES = 5500
"""Of which a forked Python process takes 2,000 before it does anything; guards against growth."""
COPIER = """#!/bin/sh
echo $$ >> PIDS
echo ready >&5
exec 5>&-
exec cat <&3 >> LOG
"""


def program(shim: Shim, text: str, name: str = "logger") -> Path:
    """A logger made of a script, in which LOG and PIDS are files."""
    path = shim.folder / name
    for word in ("LOG", "PIDS"):
        text = text.replace(word, str(shim.folder / word.lower()))
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(shim: Shim, args: Sequence[str], uri: str, *, terminal: bool = False) -> int:
    """Run a container to its end; its exit status."""
    shim.create("one", args, stdout=uri, stderr="" if terminal else uri, terminal=terminal)
    return finish(shim)


def finish(shim: Shim) -> int:
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    status = task.WaitResponse.FromString(waiting.result(60)).exit_status
    shim.client.delete(id="one")
    return status


def loggers(shim: Shim) -> list[int]:
    """orlop's own log writers that the shim has started."""
    return [pid for pid in shim.helpers if name_of(pid) == "orlop-logger"]


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_environment_and_arguments(shim: Shim) -> None:
    path = program(shim, '#!/bin/sh\nenv > PIDS; printf "[%s]" "$@" > LOG\nexec 5>&-; cat <&3')
    run(shim, ["true"], f"binary://{path}?key=a%20value&empty=&plus=a+b&key=second")
    assert (shim.folder / "log").read_text() == "[key][a value][empty][][plus][a b]"
    env = (shim.folder / "pids").read_text()
    assert "CONTAINER_ID=one\n" in env
    assert "ORLOP" not in env


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\nexit 3\n", "ended before it was ready: status 3"),
        ("#!/bin/sh\necho no disk >&5; exit 1\n", "ended before it was ready: no disk"),
        ("#!/bin/sh\nkill -9 $$\n", "ended before it was ready: status 137"),
        ("#!/nowhere/interpreter\n", "start logger .*no such file"),
    ],
)
def test_a_logger_that_does_not_come_up(shim: Shim, text: str, reason: str) -> None:
    with pytest.raises(errors.Unknown, match=reason):
        shim.create("one", ["true"], stdout=f"binary://{program(shim, text)}")
    wait_until(lambda: shim.helpers == [])


def test_a_logger_that_is_not_executable(shim: Shim) -> None:
    path = program(shim, COPIER)
    path.chmod(0o644)
    with pytest.raises(errors.Unknown, match="permission denied"):
        shim.create("one", ["true"], stdout=f"binary://{path}")


def test_a_uri_without_a_program(shim: Shim) -> None:
    with pytest.raises(errors.InvalidArgument, match="names no program"):
        shim.create("one", ["true"], stdout="binary://?path=x")


def test_a_logger_that_never_gets_ready(shim: Shim) -> None:
    """The create fails after a while; the shim serves others meanwhile."""
    path = program(shim, "#!/bin/sh\nexec sleep 1000\n")
    waiting = shim.client.begin("create", id="one", bundle=str(shim.bundle("one", ["true"])),
        stdout=f"binary://{path}")  # fmt: skip
    shim.create("two", ["true"])
    shim.finish("two")
    with pytest.raises(errors.Unknown, match="is not ready after 15 s"):
        waiting.result(40)
    wait_until(lambda: shim.helpers == [])


def test_a_failed_create_ends_its_logger(shim: Shim) -> None:
    path = program(shim, "#!/bin/sh\ntrap '' TERM\nexec 5>&-; while :; do sleep 1000; done\n")
    with pytest.raises(errors.Unknown, match="no such file"):
        shim.create("one", ["/nowhere"], stdout=f"binary://{path}")
    wait_until(lambda: shim.helpers == [])


def test_a_logger_that_is_killed_under_load(shim: Shim) -> None:
    """It is started again, the container goes on, and only what it had in hand can be missing."""
    path, lines = program(shim, COPIER), 300_000
    # What it prints last must not be what a logger has in hand when it is killed.
    script = f"seq {lines}; while [ ! -e /dev/go ]; do sleep 0.05; done; echo last; exit 7"
    pid = shim.create("one", ["sh", "-c", script], stdout=f"binary://{path}")
    pids = shim.folder / "pids"
    wait_until(pids.exists)
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    log = shim.folder / "log"
    log.touch()
    for number in range(1, 4):
        wait_until(lambda: len(pids.read_text().split()) == number)  # noqa: B023
        size = log.stat().st_size
        with suppress(AssertionError):  # it has had all
            wait_until(lambda: log.stat().st_size > size + 100_000, 1)  # noqa: B023
        os.kill(int(pids.read_text().split()[-1]), signal.SIGKILL)
    wait_until(lambda: len(pids.read_text().split()) == 4)
    Path(f"/proc/{pid}/root/dev/go").touch()
    assert task.WaitResponse.FromString(waiting.result(30)).exit_status == 7
    assert len(pids.read_text().split()) == 4
    shim.client.delete(id="one")
    found = log.read_bytes().split(b"\n")
    assert found[-2:] == [b"last", b""]
    assert len(found) > lines - 3 * 40_000


def test_a_logger_that_always_dies(shim: Shim) -> None:
    """After some tries its output is thrown away: the container comes to its end."""
    path = program(shim, "#!/bin/sh\necho $$ >> PIDS\nexec 5>&-\nsleep 0.1\n")
    assert run(shim, ["sh", "-c", "seq 500000; exit 4"], f"binary://{path}") == 4
    assert len((shim.folder / "pids").read_text().split()) == 6


def test_a_shim_sleeps_whose_logger_is_given_up(shim: Shim) -> None:
    path = program(shim, "#!/bin/sh\necho $$ >> PIDS\nexec 5>&-\nsleep 0.1\n")
    stdin = shim.fifo("stdin")
    script = "read line; seq 500000; exit 4"
    shim.create("one", ["sh", "-c", script], stdin=stdin, stdout=f"binary://{path}")
    shim.client.start(id="one")
    waiting = shim.client.begin("wait", id="one")

    def tries() -> list[str]:
        return (shim.folder / "pids").read_text().split()

    wait_until(lambda: len(tries()) == 6 and not process_exists(int(tries()[-1])))
    shim.fall_asleep()
    Path(stdin).write_text("go\n")
    assert task.WaitResponse.FromString(waiting.result(60)).exit_status == 4
    shim.fall_asleep()
    shim.client.delete(id="one")
    assert len(tries()) == 6


def test_a_logger_that_has_vanished_when_it_is_needed_again(shim: Shim) -> None:
    path = program(shim, "#!/bin/sh\nrm -f $0\nexec 5>&-\nsleep 0.1\n")
    assert run(shim, ["sh", "-c", "seq 500000; exit 4"], f"binary://{path}") == 4


def test_a_logger_that_never_reads(shim: Shim) -> None:
    """It holds the container up, as its contract has it, but not the delete of it."""
    path = program(shim, "#!/bin/sh\nexec 5>&-\nexec sleep 1000\n")
    uri = f"attach+binary://{path}"
    shim.create("one", ["head", "-c", "1000000", "/dev/zero"], stdout=uri, stderr=uri)
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    time.sleep(0.5)
    assert not waiting.done()
    shim.client.kill(id="one", signal=9)
    waiting.result(20)
    shim.client.delete(id="one")
    wait_until(lambda: shim.helpers == [])


def test_own_logger(shim: Shim) -> None:
    log = shim.folder / "deep/er/log"
    run(shim, ["sh", "-c", "echo out; echo err >&2; printf end"], Options(str(log)).uri)
    found = [(each["stream"], each["log"]) for each in entries(log)]
    assert sorted(found) == [("stderr", "err\n"), ("stdout", "end"), ("stdout", "out\n")]


def test_own_logger_cri_and_terminal(shim: Shim) -> None:
    log = shim.folder / "log"
    run(shim, ["sh", "-c", "echo out; printf end"], Options(str(log), "cri").uri, terminal=True)
    assert [line.split(b" ", 1)[1] for line in log.read_bytes().split(b"\n")[:-1]] == [
        b"stdout F out\r",
        b"stdout P end",
    ]


def test_own_logger_says_why_it_does_not_come_up(shim: Shim) -> None:
    (shim.folder / "log").mkdir()
    with pytest.raises(
        errors.Unknown, match=r"""ended before it was ready: log "/.*/log": is a directory"""
    ):
        shim.create("one", ["true"], stdout=Options(str(shim.folder / "log")).uri)
    bad = Options(str(shim.folder / "log")).uri.replace("max-size=10485760", "max-size=much")
    with pytest.raises(errors.Unknown, match='max-size="much" is not a size'):
        shim.create("two", ["true"], stdout=bad)


def test_own_logger_under_load_killed(shim: Shim) -> None:
    """Rotation and three kills: what is missing is what a writer had in hand."""
    log, lines = shim.folder / "log", 400_000
    uri = Options(str(log), max_size=4 << 20, max_file=100).uri
    # What it prints last must not be what a writer has in hand when it is killed.
    script = f"seq {lines}; while [ ! -e /dev/go ]; do sleep 0.05; done; echo last"
    pid = shim.create("one", ["sh", "-c", script], stdout=uri)
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    for _ in range(3):
        time.sleep(0.1)
        for logger in loggers(shim):
            with suppress(ProcessLookupError):  # of the last round, and reaped only now
                os.kill(logger, signal.SIGKILL)
    Path(f"/proc/{pid}/root/dev/go").touch()
    assert task.WaitResponse.FromString(waiting.result(60)).exit_status == 0
    shim.client.delete(id="one")
    files = sorted(log.parent.glob("log*"), key=lambda path: -int(path.suffix[1:] or 0))
    found, torn = [], 0
    for line in b"".join(path.read_bytes() for path in files).splitlines():
        try:
            found.append(json.loads(line)["log"])
        except ValueError:
            torn += 1
    assert found[-1] == "last\n"
    assert torn <= 3
    # A writer may have had the first half of a line in hand, or all but its end.
    numbers = [int(each) for each in found[:-1] if each.strip()]
    falls = sum(one >= two for one, two in itertools.pairwise(numbers))
    assert falls <= 3
    assert lines - len(numbers) < 3 * 40_000


def test_own_logger_outlives_its_shim(fork_server: ForkServer, folder: Path, rootfs: Path) -> None:
    """It takes what the container prints on until that is ended, too."""
    shim, log = Shim(fork_server, folder, rootfs), folder / "log"
    try:
        script = "echo first; while [ ! -e /dev/go ]; do sleep 0.05; done; seq 1000"
        pid = shim.create("one", ["sh", "-c", script], stdout=Options(str(log)).uri)
        shim.client.start(id="one")
        wait_until(lambda: log.read_text().count("first") == 1)
        (logger,) = loggers(shim)
        os.kill(shim.pid, signal.SIGKILL)
        wait_until(lambda: not process_exists(shim.pid))
        Path(f"/proc/{pid}/root/dev/go").touch()
        wait_until(lambda: not process_exists(logger))
        assert entries(log)[-1]["log"] == "1000\n"
        assert len(entries(log)) == 1001
    finally:
        shim.close()
        cleanup(NAMESPACE, "one", str(folder / "one"))
    assert leftovers(folder) == {"mounts": [], "cgroups": [], "runc": []}


def test_memory_of_own_loggers(shim: Shim) -> None:
    """What one more writer costs, after it has written something."""
    for number in range(5):
        uri = Options(str(shim.folder / f"log-{number}")).uri
        shim.create(f"c{number}", ["sh", "-c", "seq 50000; sleep 100"], stdout=uri)
        shim.client.start(id=f"c{number}")
    wait_until(
        lambda: all('"50000' in (shim.folder / f"log-{n}").read_text()[-200:] for n in range(5))
    )
    shim.fall_asleep()
    found = loggers(shim)
    sizes = [_private(pid) for pid in found]
    assert len(sizes) == 5
    assert sum(sizes) / 5 < MEMORY_KILOBYTES, sizes
    for number in range(5):
        shim.finish(f"c{number}")


def _private(pid: int) -> int:
    """What nobody shares of a process's memory, in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
