"""Several clients at one container: attach, detach, and what becomes of the streams."""

from __future__ import annotations

import select
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.client import attach, containers
from orlop.shim.keeper import HAND
from tests.daemon_fixture import Orlopd
from tests.terminal_fixture import Terminal

pytestmark = pytest.mark.root

LEAVE = b"\x10\x11"


@pytest.fixture
def echoing(orlopd: Orlopd, busybox: str) -> Iterator[str]:
    """A container that says back what it reads, on both of its outputs."""
    script = (
        "trap 'exit 9' TERM;"
        'while read word; do echo "got $word"; echo "heard $word" >&2; done; echo end; exit 7'
    )
    orlopd.orlop("run", "-d", "-i", "--name", "echoing", busybox, "sh", "-c", script)
    yield "echoing"
    orlopd.orlop("rm", "-f", "echoing", check=False)


@pytest.fixture
def shell(orlopd: Orlopd, busybox: str) -> Iterator[str]:
    orlopd.orlop("run", "-dit", "--name", "shell", busybox, "sh")
    yield "shell"
    orlopd.orlop("rm", "-f", "shell", check=False)


def _attach(orlopd: Orlopd, name: str, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        orlopd.orlop_command("attach", *flags, name),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _say(client: subprocess.Popen[str], word: str) -> None:
    assert client.stdin is not None
    client.stdin.write(f"{word}\n")
    client.stdin.flush()


def _line(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline().strip()


def test_each_client_gets_everything(orlopd: Orlopd, echoing: str) -> None:
    clients = [_attach(orlopd, echoing) for _ in range(3)]
    for number, client in enumerate(clients):
        _say(client, f"there {number}")
        while _line(client) != f"got there {number}":
            pass
    for number, client in enumerate(clients):  # all of them are there now
        _say(client, f"word {number}")
        for each in clients:
            while (line := _line(each)) != f"got word {number}":
                assert line.startswith("got there")
    assert clients[0].stdin is not None
    clients[0].stdin.close()  # the end of one's input is that of the process's
    clients[0].stdin = None
    for client in clients:
        out, err = client.communicate(timeout=20)
        assert out.splitlines()[-1] == "end"
        assert [f"heard word {number}" in err for number in range(3)] == [True] * 3
        assert client.returncode == 7


def test_an_observer_says_nothing(orlopd: Orlopd, echoing: str) -> None:
    observer = _attach(orlopd, echoing, "--no-stdin")
    _say(observer, "unheard")
    talker = _attach(orlopd, echoing)
    assert observer.stdout is not None
    while not select.select([observer.stdout], [], [], 0.3)[0]:
        _say(talker, "heard")  # until the observer is there
    assert _line(observer) == "got heard"
    observer.terminate()  # a signal is for the container's process
    assert observer.wait(20) == 9
    talker.communicate(timeout=20)
    assert orlopd.orlop("wait", echoing).stdout == "9\n"


def test_a_client_without_signals_leaves(orlopd: Orlopd, echoing: str) -> None:
    client = _attach(orlopd, echoing, "--sig-proxy=false")
    _say(client, "word")
    assert _line(client) == "got word"
    client.terminate()
    assert client.wait(20) == 143
    client.communicate(timeout=20)
    assert orlopd.orlop("ps", "--format", "{{.State}}").stdout == "running\n"


def test_leaving_a_terminal_and_coming_back(orlopd: Orlopd, busybox: str) -> None:
    with Terminal(orlopd.orlop_command("run", "-it", "--name", "one", busybox, "sh")) as run:
        run.expect(b"# ")
        run.type(b"(sleep 1; seq 70000; echo all of it) &\n")
        run.expect(b"# ")
        run.type(LEAVE)
        run.expect(b"read escape sequence")
        assert run.wait() == 0
    # More than a pipe holds, and nobody there: it goes on, and nothing is lost.
    orlopd.wait_for(lambda: "all of it\n" in orlopd.orlop("logs", "one").stdout, 30)
    assert "\n69999\n70000\n" in orlopd.orlop("logs", "one").stdout
    with Terminal(orlopd.orlop_command("attach", "--detach-keys", "x,y", "one")) as back:
        back.expect(b"# ")
        back.resize(41, 99)
        back.type(b"until stty size | grep '41 9[9]'; do sleep 0.1; done\n")
        back.expect(b"41 99")
        back.type(b"echo x; exit 3\n")
        back.expect(b"\nx\r\n")
        assert back.wait() == 3
    orlopd.orlop("rm", "one")


def test_two_terminals_at_once(orlopd: Orlopd, shell: str) -> None:
    command = orlopd.orlop_command("attach", shell)
    with Terminal(command) as one, Terminal(command) as two:
        one.expect(b"# ")
        two.expect(b"# ")
        one.type(b"echo $((6*7))\n")
        one.expect(b"42\r\n")
        two.expect(b"42\r\n")
        one.type(LEAVE)
        assert one.wait() == 0
        two.type(b"echo $((6*8)); exit\n")
        two.expect(b"48\r\n")
        assert two.wait() == 0


def test_a_run_that_is_left_is_removed_in_the_end(orlopd: Orlopd, busybox: str) -> None:
    with Terminal(
        orlopd.orlop_command("run", "-it", "--rm", "--name", "one", busybox, "sh")
    ) as run:
        run.expect(b"# ")
        run.type(LEAVE)
        assert run.wait() == 0
    assert orlopd.orlop("ps", "-q").stdout == "one\n"
    orlopd.orlop("kill", "one")
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "")


def test_an_exec_that_is_left_goes_on(orlopd: Orlopd, shell: str) -> None:
    script = "echo ready; read x; seq 70000; touch /tmp/done; sleep 1000"
    with Terminal(orlopd.orlop_command("exec", "-it", shell, "sh", "-c", script)) as terminal:
        terminal.expect(b"ready")
        terminal.type(b"\n")
        terminal.expect(b"70000")
        terminal.type(LEAVE)
        assert terminal.wait() == 0
    orlopd.wait_for(
        lambda: orlopd.orlop("exec", shell, "test", "-e", "/tmp/done", check=False).returncode == 0
    )
    assert "sleep 1000" in orlopd.orlop("top", shell).stdout


def test_start_attached(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-i", "--name", "one", busybox, "sh", "-c", "cat; exit 5", check=False)
    again = orlopd.orlop("start", "-a", "-i", "one", input="typed\n", check=False)
    assert (again.stdout, again.returncode) == ("typed\n", 5)
    refused = orlopd.orlop("start", "-a", "one", "one", check=False)
    assert "only one container" in refused.stderr
    orlopd.orlop("rm", "one")


def test_output_is_kept_without_a_client(orlopd: Orlopd, busybox: str) -> None:
    assert orlopd.orlop("run", "--name", "one", busybox, "echo", "ahoy").stdout == "ahoy\n"
    assert orlopd.orlop("logs", "one").stdout == "ahoy\n"
    orlopd.orlop("rm", "one")


def test_binary_output_and_slow_readers(orlopd: Orlopd, busybox: str) -> None:
    with subprocess.Popen(
        orlopd.orlop_command("run", "--rm", busybox, "sh", "-c", "dd if=/dev/urandom bs=64k "
                             "count=64 2>/dev/null | tee /tmp/x; md5sum < /tmp/x >&2"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as client:  # fmt: skip
        time.sleep(1)
        assert client.stdout is not None
        data = client.stdout.read()
        assert client.stderr is not None
        told = client.stderr.read().split()[0].decode()
    assert len(data) == 4 << 20
    assert subprocess.run(["md5sum"], input=data, capture_output=True, check=True
                          ).stdout.split()[0].decode() == told  # fmt: skip


def test_who_reads_neither_stream_and_goes(orlopd: Orlopd, busybox: str) -> None:
    """Both of a process's streams wait for a client, which is killed: the others go on."""
    zeros = "dd if=/dev/zero bs=64k count=64"
    script = f"{zeros} & {zeros} >&2; wait; touch /done; exec sleep 1000"
    with subprocess.Popen(
        orlopd.orlop_command("run", "--name", "one", busybox, "sh", "-c", script),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as client:  # fmt: skip
        orlopd.wait_for(lambda: orlopd.orlop("ps", "-q").stdout == "one\n")
        time.sleep(3)  # until all between it and the process is full
        client.kill()
    orlopd.wait_for(
        lambda: orlopd.orlop("exec", "one", "test", "-e", "/done", check=False).returncode == 0
    )
    (pid,) = (int(line.split()[1]) for line in orlopd.ctr("tasks", "ls").stdout.splitlines()[1:])
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    orlopd.wait_for(lambda: HAND not in _children(shim))  # it sleeps
    assert orlopd.orlop("ps", "--format", "{{.State}}").stdout == "running\n"
    assert orlopd.orlop("exec", "one", "echo", "here").stdout == "here\n"
    orlopd.orlop("rm", "-f", "one")


def _children(pid: int) -> set[str]:
    """The names of a process's children."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = set()
    for each in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            names.add(Path(f"/proc/{each}/comm").read_text().strip())
    return names


def test_another_shim_has_its_log(orlopd: Orlopd, busybox: str) -> None:
    shim = "/usr/bin/containerd-shim-runc-v2"
    script = "while ! test -e /tmp/go; do echo here; sleep 0.1; done; echo went; exit 6"
    orlopd.orlop("run", "-d", "--runtime", shim, "--name", "one", busybox, "sh", "-c", script)
    clients = [_attach(orlopd, "one") for _ in range(2)]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "here\n"
    orlopd.orlop("exec", "one", "touch", "/tmp/go")
    for client in clients:
        out, _ = client.communicate(timeout=60)
        assert (out.replace("here\n", ""), client.returncode) == ("went\n", 6)
    orlopd.orlop("rm", "one")


def test_nothing_stays_of_who_follows_a_silent_log(orlopd: Orlopd, busybox: str) -> None:
    shim = "/usr/bin/containerd-shim-runc-v2"
    orlopd.orlop("run", "-d", "--runtime", shim, "--name", "one", busybox, "sleep", "1000")

    def threads() -> set[str]:
        names = {each.name for each in threading.enumerate()}
        return names & {"orlop-follow", "orlop-wait"}

    with orlopd.connect() as connection:
        before = len(list(Path("/proc/self/fd").iterdir()))
        attached = attach.attach(connection, containers.get(connection, "one"))
        orlopd.wait_for(lambda: len(threads()) == 2)
        attached.close()
        orlopd.wait_for(lambda: not threads())
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    orlopd.orlop("rm", "-f", "one")


def test_what_cannot_be_attached_to(orlopd: Orlopd, shell: str, busybox: str) -> None:
    orlopd.orlop("pause", shell)
    assert "is paused" in orlopd.orlop("attach", shell, check=False).stderr
    assert "is paused" in orlopd.orlop("exec", shell, "true", check=False).stderr
    orlopd.orlop("unpause", shell)
    orlopd.orlop("kill", shell)
    orlopd.orlop("wait", shell)
    assert "does not run" in orlopd.orlop("attach", shell, check=False).stderr
    assert (
        'detach key "up"' in orlopd.orlop("run", "--detach-keys", "up", busybox, check=False).stderr
    )
    orlopd.ctr("run", "-d", "--null-io", busybox, "foreign", "sleep", "1000")
    refused = orlopd.orlop("attach", "foreign", check=False)
    assert "its output is with the client that started it" in refused.stderr
    orlopd.orlop("rm", "-f", "foreign")


def test_a_file_that_nobody_reads_to_its_end(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 3_000_000)
    with (tmp_path / "in").open("rb") as stdin:
        done = subprocess.run(
            orlopd.orlop_command("run", "--rm", "-i", busybox, "sh", "-c", "head -c 5; seq 70000"),
            stdin=stdin, capture_output=True, text=True, timeout=100, check=True,
        )  # fmt: skip
    assert done.stdout.startswith("xxxxx1\n")
    assert done.stdout.endswith("\n70000\n")
