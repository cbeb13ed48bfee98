"""`orlop run --log-driver`, and `orlop logs`: nothing that a container printed is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from orlop.client import containers, log_files
from orlop.logger.options import PROGRAM
from tests.daemon_fixture import Orlopd
from tests.patience import patient

pytestmark = pytest.mark.root

DRIVERS = ["json-file", "cri", "file"]
GO = "while [ ! -e /go ]; do sleep 0.1; done"


def run(daemon: Orlopd, image: str, name: str, script: str, *options: str) -> None:
    daemon.orlop("run", "-d", "--name", name, *options, image, "sh", "-c", script)


def logs(daemon: Orlopd, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """`orlop logs`, its outputs as bytes."""
    return subprocess.run(
        daemon.orlop_command("logs", *arguments), capture_output=True, timeout=100, check=True
    )


def follow(daemon: Orlopd, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        daemon.orlop_command("logs", "-f", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def log_of(daemon: Orlopd, name: str) -> Path:
    with daemon.connect() as connection:
        return log_files.find(connection, containers.get(connection, name)).path


def _await_word(daemon: Orlopd, word: bytes) -> None:
    """Until it is in the log of container `one`: what comes later is told apart from it."""

    def told() -> bool:
        shown = logs(daemon, "one")
        return word in shown.stdout + shown.stderr

    daemon.wait_for(told)


def remove(daemon: Orlopd, *names: str) -> None:
    daemon.orlop("rm", "-f", *names)
    for name in names:
        assert not (daemon.root / "logs" / daemon.namespace / name).exists()


@pytest.mark.parametrize("driver", DRIVERS)
def test_streams_and_tails(orlopd: Orlopd, busybox: str, driver: str) -> None:
    script = rf"echo err >&2; {GO}; seq 1 100; printf 'a\r\nb\377\n'; printf 'no newline'"
    run(orlopd, busybox, "one", script, "--log-driver", driver)
    _await_word(orlopd, b"err")  # what is ready at once has no order
    orlopd.orlop("exec", "one", "touch", "/go")
    orlopd.orlop("wait", "one")
    _await_word(orlopd, b"no newline")  # nobody has a lock of a plain file while it is written
    seq = b"".join(b"%d\n" % number for number in range(1, 101))
    shown = logs(orlopd, "one")
    if driver == "file":
        assert sorted((shown.stdout + shown.stderr).split(b"\n")) == sorted(
            (seq + b"err\na\r\nb\xff\nno newline").split(b"\n")
        )
    else:
        assert shown.stdout == seq + b"a\r\nb\xff\nno newline"
        assert shown.stderr == b"err\n"
        assert logs(orlopd, "-t", "one").stderr.endswith(b"Z err\n")
    assert logs(orlopd, "-n", "2", "one").stdout == b"b\xff\nno newline"
    assert logs(orlopd, "-f", "-n", "1", "one").stdout == b"no newline"
    remove(orlopd, "one")


def test_times(orlopd: Orlopd, busybox: str) -> None:
    script = f"echo early; {GO}; rm /go; echo late; {GO}; echo last"
    run(orlopd, busybox, "one", script)
    for word in (b"early", b"late"):
        _await_word(orlopd, word)
        orlopd.orlop("exec", "one", "touch", "/go")
    orlopd.orlop("wait", "one")
    stamped = [line.split(b" ") for line in logs(orlopd, "--timestamps", "one").stdout.splitlines()]
    assert [text for _, text in stamped] == [b"early", b"late", b"last"]
    late, last = stamped[1][0].decode(), stamped[2][0].decode()
    assert logs(orlopd, "--since", late, "one").stdout == b"late\nlast\n"
    assert logs(orlopd, "--until", late, "one").stdout == b"early\n"
    assert logs(orlopd, "--since", late, "--until", last, "-f", "one").stdout == b"late\n"
    assert logs(orlopd, "--since", "1h", "one").stdout == b"early\nlate\nlast\n"
    assert logs(orlopd, "--until", "1h", "one").stdout == b""
    bad = orlopd.orlop("logs", "--since", "yesterday", "one", check=False)
    assert "is no moment such as" in bad.stderr
    remove(orlopd, "one")


def test_a_plain_file_has_no_times(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, "one", "echo hi", "--log-driver", "file")
    orlopd.orlop("wait", "one")
    for option in (["--since", "1h"], ["-t"]):
        shown = orlopd.orlop("logs", *option, "one", check=False)
        assert shown.returncode == 1
        assert "has no times" in shown.stderr
    remove(orlopd, "one")


def test_no_log(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, "one", "echo hi", "--log-driver", "none")
    shown = orlopd.orlop("logs", "one", check=False)
    assert shown.returncode == 1
    assert 'log of container "one": its output is kept nowhere' in shown.stderr
    remove(orlopd, "one")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--log-opt", "max-size"], "is not NAME=VALUE"),
        (["--log-opt", "max-size=much"], "is not a size"),
        (["--log-opt", "max-file=0"], "is not a number from 1 to 1000"),
        (["--log-opt", "compress=true"], 'has no option "compress"; it has path, max-size'),
        (["--log-driver", "none", "--log-opt", "path=/x"], "it has none"),
        (["--log-driver", "syslog"], "invalid choice"),
    ],
)
def test_bad_options(orlopd: Orlopd, busybox: str, options: list[str], reason: str) -> None:
    refused = orlopd.orlop("run", "-d", *options, busybox, "true", check=False)
    assert refused.returncode != 0
    assert reason in refused.stderr
    assert orlopd.orlop("ps", "-aq").stdout == ""


def test_an_attached_container_has_a_log_too(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "--name", "one", "--log-driver", "cri", busybox, "echo", "hi")
    assert logs(orlopd, "one").stdout == b"hi\n"
    assert log_of(orlopd, "one").read_bytes().endswith(b"Z stdout F hi\n")
    remove(orlopd, "one")


def test_rotation_by_default_and_by_choice(orlopd: Orlopd, busybox: str) -> None:
    run(
        orlopd, busybox, "small", "seq 5000", "--log-opt", "max-size=20k", "--log-opt", "max-file=3"
    )
    orlopd.orlop("wait", "small")
    log = log_of(orlopd, "small")
    orlopd.wait_for(lambda: b'"5000' in log.read_bytes()[-200:])
    files = sorted(path.name for path in log.parent.iterdir())
    assert files == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 20 << 10 for path in log.parent.iterdir())
    numbers = [int(line) for line in logs(orlopd, "small").stdout.split()]
    assert numbers == list(range(numbers[0], 5001))
    run(orlopd, busybox, "default", "true")
    with orlopd.connect() as connection:
        uri = containers.get(connection, "default").labels[log_files.LABEL]
    assert uri.endswith("&max-size=10485760&max-file=10")
    remove(orlopd, "small", "default")


def test_a_path_of_one_s_own_stays(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    log = tmp_path / "it is 100%.log"
    run(orlopd, busybox, "one", "echo hi", "--log-opt", f"path={log}")
    orlopd.orlop("wait", "one")
    assert logs(orlopd, "one").stdout == b"hi\n"
    remove(orlopd, "one")
    assert json.loads(log.read_text())["log"] == "hi\n"


def test_auto_remove_takes_the_log(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, "one", f"{GO}; echo hi", "--rm")
    folder = log_of(orlopd, "one").parent
    assert folder.exists()
    orlopd.orlop("exec", "one", "touch", "/go")
    orlopd.wait_for(lambda: not folder.exists())
    run(orlopd, busybox, "two", "true", "--rm", "--log-driver", "none")
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "")


@pytest.mark.parametrize("driver", DRIVERS)
def test_follow_past_restarts(orlopd: Orlopd, busybox: str, driver: str) -> None:
    script = "echo up; sleep 0.3; exit 1"
    run(orlopd, busybox, "one", script, "--restart", "on-failure:2", "--log-driver", driver)
    following = follow(orlopd, "one")
    out, err = following.communicate(timeout=60)
    assert out == b"up\n" * 3
    assert err == b""
    remove(orlopd, "one")


def test_follow_ends_when_it_is_stopped_or_removed(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, "one", "echo up; sleep 1000", "--restart", "always")
    following = follow(orlopd, "one")
    orlopd.wait_for(lambda: logs(orlopd, "one").stdout == b"up\n")
    orlopd.orlop("stop", "-t", "0", "one")
    assert following.communicate(timeout=30)[0] == b"up\n"
    orlopd.orlop("start", "one")
    following = follow(orlopd, "one")
    remove(orlopd, "one")
    following.communicate(timeout=30)


def test_follow_where_others_have_every_inotify(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, "one", f"echo early; {GO}; echo late")
    _await_word(orlopd, b"early")
    none_left = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", none_left, "sh"]
    command += orlopd.orlop_command("logs", "-f", "one")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        try:
            assert following.stdout is not None
            assert following.stdout.readline() == b"early\n"
            orlopd.orlop("exec", "one", "touch", "/go")
            assert following.communicate(timeout=patient(100)) == (b"late\n", b"")
        finally:
            following.kill()
    remove(orlopd, "one")


def test_a_terminal(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, "one", "echo out; echo err >&2", "-t")
    assert logs(orlopd, "-f", "one").stdout == b"out\r\nerr\r\n"
    remove(orlopd, "one")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["json-file", "cri"])
def test_nothing_is_lost(orlopd: Orlopd, busybox: str, driver: str) -> None:
    """orlopd is killed twice, a reader, too, while a container prints fast and its log rotates."""
    lines = 600_000
    long_line = "head -c 65536 /dev/zero | tr '\\0' x; echo"
    script = f"echo begin; {GO}; seq {lines}; {long_line}; sleep 1; echo end"
    options = ["--log-driver", driver, "--log-opt", "max-size=1m", "--log-opt", "max-file=1000"]
    run(orlopd, busybox, "one", script, *options)
    following, doomed = follow(orlopd, "one"), follow(orlopd, "one")
    for each in (following, doomed):
        assert each.stdout is not None
        assert each.stdout.readline() == b"begin\n"
    orlopd.orlop("exec", "one", "touch", "/go")
    doomed.kill()
    doomed.communicate()
    for _ in range(2):
        orlopd.kill9()
        time.sleep(0.2)
        orlopd.start()
    wanted = b"".join(b"%d\n" % number for number in range(1, lines + 1))
    wanted += b"x" * 65536 + b"\nend\n"
    out, _ = following.communicate(timeout=300)
    assert out == wanted
    assert logs(orlopd, "-f", "one").stdout == b"begin\n" + wanted
    assert len(list(log_of(orlopd, "one").parent.iterdir())) > 10
    remove(orlopd, "one")


def test_a_log_writer_that_ctr_asked_for(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    """Without any label: the task knows where its output goes."""
    uri = f"binary://{PROGRAM}?path={tmp_path}/log&format=cri"
    orlopd.ctr("run", "-d", "--log-uri", uri, busybox, "one", "echo", "hi")
    assert logs(orlopd, "-f", "one").stdout == b"hi\n"
    orlopd.ctr("tasks", "rm", "one")
    orlopd.ctr("containers", "rm", "one")


def test_the_writer_is_killed(orlopd: Orlopd, busybox: str) -> None:
    """The container goes on, and so does its log."""
    run(orlopd, busybox, "one", f"echo first; {GO}; echo second")
    following = follow(orlopd, "one")
    orlopd.wait_for(lambda: logs(orlopd, "one").stdout == b"first\n")
    (writer,) = [pid for pid, name in orlopd.processes() if name == "orlop-logger"]
    os.kill(writer, signal.SIGKILL)
    orlopd.orlop("exec", "one", "touch", "/go")
    assert following.communicate(timeout=30)[0] == b"first\nsecond\n"
    remove(orlopd, "one")
