"""The orlop command against a private orlopd and a real registry."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.client import containers
from orlop.errors import DeadlineExceeded
from tests.daemon_fixture import Orlopd
from tests.events_heard import hearing
from tests.terminal_fixture import Terminal

pytestmark = pytest.mark.root


@pytest.fixture
def image(orlopd: Orlopd, registry: str) -> str:
    name = f"{registry}/test/busybox:latest"
    orlopd.orlop("pull", name)
    return name


@pytest.fixture
def sleeper(orlopd: Orlopd, image: str) -> Iterator[str]:
    orlopd.orlop("run", "-d", "--name", "sleeper", image, "sleep", "1000")
    yield "sleeper"
    orlopd.orlop("rm", "-f", "sleeper", check=False)


def test_pull_list_remove(orlopd: Orlopd, image: str) -> None:
    listed = orlopd.orlop("images").stdout
    assert image in listed
    assert "MiB" in listed
    again = orlopd.orlop("pull", image)
    assert again.stdout.strip() == image
    assert orlopd.orlop("images", "-q").stdout.split() == [image]
    assert orlopd.orlop("rmi", image).stdout.strip() == image
    missing = orlopd.orlop("rmi", image, check=False)
    assert missing.returncode == 1
    assert f'image "{image}": not found' in missing.stderr


def test_run_passes_output_and_status(orlopd: Orlopd, image: str) -> None:
    done = orlopd.orlop("run", "--rm", image, "sh", "-c", "echo out; echo err >&2; exit 42",
                        check=False)  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 42)
    crashed = orlopd.orlop(
        "run", "--rm", image, "sh", "-c", "sh -c 'kill -9 $$'; exit $?", check=False
    )
    assert crashed.returncode == 137
    assert orlopd.orlop("ps", "-aq").stdout == ""


def test_run_options(orlopd: Orlopd, image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "note").write_text("from the host")
    script = "echo $CARGO; pwd; id -un; id -G; cat /mnt/note; hostname; echo $HOME"
    done = orlopd.orlop(
        "run", "--rm", "-e", "CARGO=tea", "-w", "/tmp", "-u", "sailor", "-v",
        f"{tmp_path}:/mnt:ro", "--name", "job", image, "sh", "-c", script,
    )  # fmt: skip
    assert done.stdout.split("\n") == [
        "tea", "/tmp", "sailor", "1000 50", "from the hostjob", "/home/sailor", "",
    ]  # fmt: skip
    read_only = orlopd.orlop(
        "run", "--rm", "-v", f"{tmp_path}:/mnt:ro", image, "touch", "/mnt/x", check=False
    )
    assert read_only.returncode == 1
    assert "Read-only" in read_only.stderr


def test_the_default_is_tight(orlopd: Orlopd, image: str) -> None:
    script = (
        "grep -E 'CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; mount -t tmpfs x /home 2>&1;"
        "ls /sys/class/net; unshare -n true 2>&1; echo x > /proc/sys/kernel/hostname"
    )
    done = orlopd.orlop("run", "--rm", "--security-opt", "no-new-privileges", image, "sh", "-c",
                        script, check=False)  # fmt: skip
    assert "CapBnd:\t00000000a80425fb" in done.stdout
    assert "Seccomp:\t2" in done.stdout
    assert "NoNewPrivs:\t1" in done.stdout
    assert "permission denied" in done.stdout.lower()
    assert "Operation not permitted" in done.stdout
    assert [line for line in done.stdout.splitlines() if line in ("lo", "eth0")] == ["lo"]
    assert "Read-only" in done.stderr


def test_host_network(orlopd: Orlopd, image: str) -> None:
    inside = orlopd.orlop("run", "--rm", "--net", "host", image, "readlink", "/proc/self/ns/net")
    assert inside.stdout.strip() == str(Path("/proc/self/ns/net").readlink())


def test_entrypoint_and_stdin(orlopd: Orlopd, image: str) -> None:
    assert orlopd.orlop("run", "--rm", "--entrypoint", "echo", image, "hi").stdout == "hi\n"
    data = "x" * 300_000
    done = orlopd.orlop("run", "--rm", "-i", image, "wc", "-c", input=data)
    assert done.stdout.strip() == "300000"
    echoed = orlopd.orlop("run", "--rm", "-i", image, "cat", input=data)
    assert echoed.stdout == data


def test_a_file_as_stdin(orlopd: Orlopd, image: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 200_000)
    with (tmp_path / "in").open("rb") as stdin:
        done = subprocess.run(
            orlopd.orlop_command("run", "--rm", "-i", image, "wc", "-c"),
            stdin=stdin, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert done.stdout.strip() == "200000"


@pytest.mark.parametrize(
    ("command", "status", "complaint"),
    [
        (["no-such-command"], 127, "executable file not found"),
        (["/etc/passwd"], 126, "permission denied"),
    ],
)
def test_commands_that_cannot_run(
    orlopd: Orlopd, image: str, command: list[str], status: int, complaint: str
) -> None:
    done = orlopd.orlop("run", "--name", "job", image, *command, check=False)
    assert done.returncode == status
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert orlopd.orlop("ps", "-aq").stdout == ""
    assert "job" not in orlopd.ctr("snapshots", "ls").stdout


def test_unknown_users_and_images(orlopd: Orlopd, image: str, registry: str) -> None:
    done = orlopd.orlop("run", "--rm", "-u", "nobody-here", image, "true", check=False)
    assert done.returncode == 125
    assert 'user "nobody-here"' in done.stderr
    done = orlopd.orlop("run", "--rm", f"{registry}/test/none", "true", check=False)
    assert done.returncode == 125
    assert "not found" in done.stderr
    done = orlopd.orlop("run", "--rm", "Bad//Name", "true", check=False)
    assert "lower case" in done.stderr
    assert orlopd.orlop("ps", "-aq").stdout == ""


def test_detached_life(orlopd: Orlopd, image: str) -> None:
    orlopd.orlop("run", "-d", "--name", "web", image, "sh", "-c", "echo ready; exec sleep 1000")
    orlopd.wait_for(lambda: "ready" in orlopd.orlop("logs", "web").stdout)
    assert "Up " in orlopd.orlop("ps").stdout
    assert orlopd.orlop("exec", "web", "echo", "inside").stdout == "inside\n"
    again = orlopd.orlop("run", "-d", "--name", "web", image, "true", check=False)
    assert again.returncode == 125
    assert "already exists" in again.stderr
    shown = json.loads(orlopd.orlop("inspect", "web").stdout)[0]
    assert shown["task"]["status"] == "RUNNING"
    assert shown["spec"]["process"]["args"][0] == "sh"
    orlopd.orlop("stop", "-t", "0.5", "web")
    assert "Exited (137)" in orlopd.orlop("ps", "-a").stdout
    assert orlopd.orlop("ps", "-q").stdout == ""
    orlopd.orlop("rm", "web")
    gone = orlopd.orlop("logs", "web", check=False)
    assert 'container "web": not found' in gone.stderr


def test_a_container_that_ended_reports_its_status(orlopd: Orlopd, image: str) -> None:
    orlopd.orlop("run", "-d", "--name", "brief", image, "sh", "-c", "echo bye; exit 3")
    orlopd.wait_for(lambda: "Exited (3)" in orlopd.orlop("ps", "-a").stdout)
    assert orlopd.orlop("logs", "-f", "brief").stdout == "bye\n"
    refused = orlopd.orlop("exec", "brief", "true", check=False)
    assert refused.returncode == 125
    orlopd.orlop("rm", "brief")


def test_detached_with_rm_leaves_nothing(orlopd: Orlopd, image: str) -> None:
    orlopd.orlop("run", "-d", "--rm", "--name", "ghost", image, "sleep", "0.3")
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "")
    orlopd.wait_for(lambda: "ghost" not in orlopd.ctr("snapshots", "ls").stdout)
    orlopd.orlop("run", "-d", "--rm", "--name", "ghost", image, "sleep", "1.5")
    orlopd.kill9()
    time.sleep(2)
    orlopd.start()
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "")


def test_a_label_names_no_file_to_remove(orlopd: Orlopd, image: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    orlopd.ctr("containers", "create", "--label", f"orlop/log-uri=file://{precious}", image, "sly",
               "sleep", "1")  # fmt: skip
    orlopd.orlop("rm", "sly")
    assert precious.read_text() == "kept"


def test_rm_holds_when_nobody_reads(orlopd: Orlopd, image: str) -> None:
    with subprocess.Popen(
        orlopd.orlop_command("run", "--rm", image, "yes"), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        process.wait(20)
    assert orlopd.orlop("ps", "-aq").stdout == ""


def test_rm_refuses_a_running_container(orlopd: Orlopd, sleeper: str) -> None:
    refused = orlopd.orlop("rm", sleeper, check=False)
    assert refused.returncode == 1
    assert "running" in refused.stderr
    assert orlopd.orlop("exec", sleeper, "true").returncode == 0
    orlopd.orlop("rm", "-f", sleeper)


def test_waiting_runs_out_of_time(orlopd: Orlopd, sleeper: str) -> None:
    """Whichever side notices first, it is the time that ran out: `stop` goes by that."""
    with orlopd.connect() as connection:
        for _ in range(40):
            with pytest.raises(DeadlineExceeded):
                containers.wait(connection, sleeper, timeout=0.03)
    for _ in range(3):
        orlopd.orlop("run", "-d", "--name", "stubborn", _image_of(orlopd, sleeper), "sleep", "99")
        orlopd.orlop("stop", "-t", "0.1", "stubborn")
        assert "Exited (137)" in orlopd.orlop("ps", "-a").stdout
        orlopd.orlop("rm", "stubborn")


def _image_of(orlopd: Orlopd, container: str) -> str:
    return str(json.loads(orlopd.orlop("inspect", container).stdout)[0]["image"])


def test_exec_options(orlopd: Orlopd, sleeper: str) -> None:
    done = orlopd.orlop("exec", "-u", "sailor", "-w", "/tmp", "-e", "A=1", sleeper, "sh", "-c",
                        "id -u; pwd; echo $A; exit 5", check=False)  # fmt: skip
    assert done.stdout == "1000\n/tmp\n1\n"
    assert done.returncode == 5
    assert orlopd.orlop("exec", "-i", sleeper, "cat", input="abc").stdout == "abc"
    missing = orlopd.orlop("exec", sleeper, "no-such", check=False)
    assert missing.returncode == 127
    orlopd.orlop("exec", "-d", sleeper, "touch", "/tmp/made")
    orlopd.wait_for(
        lambda: orlopd.orlop("exec", sleeper, "ls", "/tmp/made", check=False).returncode == 0
    )


def test_kill_by_name_and_prefix(orlopd: Orlopd, sleeper: str) -> None:
    orlopd.orlop("kill", "-s", "TERM", "sleep")
    orlopd.orlop("kill", "sleeper")
    orlopd.wait_for(lambda: "Exited (137)" in orlopd.orlop("ps", "-a").stdout)
    bad = orlopd.orlop("kill", "-s", "NOPE", "sleeper", check=False)
    assert 'signal "NOPE" is not one that Linux has' in bad.stderr


def test_logs_tail(orlopd: Orlopd, image: str) -> None:
    orlopd.orlop("run", "-d", "--name", "counter", image, "seq", "100")
    orlopd.wait_for(lambda: "Exited" in orlopd.orlop("ps", "-a").stdout)
    assert orlopd.orlop("logs", "--tail", "3", "counter").stdout == "98\n99\n100\n"
    orlopd.orlop("rm", "counter")


def test_events(orlopd: Orlopd, image: str) -> None:
    command = orlopd.orlop_command("events", "--json")
    with hearing(orlopd, 'topic~="^/tasks/"', command=command) as heard:
        orlopd.orlop("run", "--rm", "--name", "evented", image, "true")
        orlopd.wait_for(lambda: "/tasks/delete" in heard.topics())
        events = [json.loads(line) for line in heard.lines()]
    assert [event["topic"].rpartition("/")[2] for event in events] == [
        "create", "start", "exit", "delete",
    ]  # fmt: skip
    assert all(event["event"]["container_id"] == "evented" for event in events)


def test_no_daemon() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "orlop"), "--address", "/nonexistent/o.sock", "ps"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot reach orlopd" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_program_knows_its_size_from_its_start(orlopd: Orlopd, image: str) -> None:
    for command in (("run", "-it", "--name", "one", image, "sh"), ("exec", "-it", "one", "sh")):
        asking = [*command, "-c", "stty size; exec sleep 1000"]
        with Terminal(orlopd.orlop_command(*asking), 33, 101) as terminal:
            terminal.expect(b"33 101")
    orlopd.orlop("rm", "-f", "one")


def test_an_interactive_terminal(orlopd: Orlopd, image: str) -> None:
    with Terminal(orlopd.orlop_command("run", "-it", "--rm", image, "sh")) as terminal:
        terminal.expect(b"# ")
        terminal.resize(33, 101)
        terminal.type(b"until stty size | grep '33 10[1]'; do sleep 0.1; done; tty\n")
        terminal.expect(b"33 101")
        terminal.expect(b"/dev/pts/0")
        # The terminal is as commands have it, and who is to be interrupted has it by then.
        terminal.type(b"sh -c 'echo slee\"\"ping; sleep 100'\n")
        terminal.expect(b"sleeping")
        terminal.type(b"\x03")
        terminal.type(b"echo interrupted $?\n")
        terminal.expect(b"interrupted 130")
        terminal.type(b"exit 9\n")
        assert terminal.wait() == 9
    assert orlopd.orlop("ps", "-aq").stdout == ""


def test_signals_are_forwarded(orlopd: Orlopd, image: str) -> None:
    script = "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        orlopd.orlop_command("run", "--rm", image, "sh", "-c", script),
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "caught\n"
        assert process.wait(20) == 4


def test_removed_by_force_while_it_removes_itself(orlopd: Orlopd, image: str) -> None:
    for number in range(5):
        name = f"short-{number}"
        orlopd.orlop("run", "-d", "--rm", "--name", name, image, "sleep", "1000")
        assert orlopd.orlop("rm", "-f", name).stdout == f"{name}\n"
    assert orlopd.orlop("rm", "-f", "short-0", check=False).returncode == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_what_a_container_prints_goes_to_no_socket(orlopd: Orlopd, image: str, closed: str) -> None:
    """The connection to orlopd, opened next, would become the descriptor that is closed."""
    script = "head -c 200000 /dev/zero | tr '\\0' A | tee /dev/stderr; exit 42"
    command = orlopd.orlop_command("run", "--rm", image, "sh", "-c", script)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 42, done.stderr.strip(b"A")
