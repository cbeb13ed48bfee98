"""orlopd as a process: start, notify, lock, stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.daemon_fixture import Orlopd
from tests.patience import patient

pytestmark = pytest.mark.root

ORLOPD = str(Path(sys.executable).parent / "orlopd")


def test_one_daemon_a_root(orlopd: Orlopd) -> None:
    second = subprocess.run(
        [ORLOPD, "--root", str(orlopd.root), "--state", str(orlopd.folder / "other")],
        capture_output=True, text=True, timeout=patient(60), check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert str(orlopd.pid) in second.stderr
    assert second.stderr.count("\n") == 1


def _clients(daemon: Orlopd) -> int:
    """How many are connected, and have been accepted."""
    lines = map(str.split, Path("/proc/net/unix").read_text().splitlines())
    return sum(words[5] == "03" and words[-1] == daemon.address for words in lines)


@pytest.mark.fresh
def test_it_stops_quickly_while_clients_wait(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("run", "-d", busybox, "stays", "sleep", "1000")
    with (
        subprocess.Popen(orlopd.ctr_command("events"), stdout=subprocess.DEVNULL) as events,
        subprocess.Popen(
            orlopd.ctr_command("tasks", "attach", "stays"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as attached,
    ):  # fmt: skip
        orlopd.wait_for(lambda: _clients(orlopd) == 2)
        assert orlopd.stop() < patient(10)  # neither client would ever leave
        for client in (events, attached):
            client.kill()
    orlopd.start()
    orlopd.wait_for(lambda: "RUNNING" in orlopd.ctr("tasks", "ls").stdout)
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "stays")
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout)
    orlopd.ctr("tasks", "rm", "stays")
    orlopd.ctr("containers", "rm", "stays")


def test_a_snapshotter_whose_folder_is_broken(orlopd: Orlopd, busybox: str) -> None:
    """It is told of, and all else runs."""
    orlopd.stop()
    folder = orlopd.root / "snapshots/native"
    aside = folder.rename(orlopd.root / "aside")
    folder.symlink_to("nowhere")
    try:
        orlopd.start()
        assert orlopd.ctr("run", "--rm", busybox, "goes-on", "echo", "ran").stdout == "ran\n"
        plugins = orlopd.ctr("plugins", "ls").stdout.splitlines()
        (native,) = (line.split() for line in plugins if " native " in line)
        assert native[-1] != "ok"
    finally:
        orlopd.stop()
        folder.unlink()
        aside.rename(folder)
        orlopd.start()


def test_systemd_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(patient(40))
        with subprocess.Popen(
            [ORLOPD, "--root", str(tmp_path / "r"), "--state", str(tmp_path / "s")],
            env={**os.environ, "NOTIFY_SOCKET": path}, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert b"READY=1" in notify.recv(4096)
            process.terminate()
            assert process.wait(patient(20)) == 0


@pytest.mark.fresh
def test_stacks_on_request(orlopd: Orlopd) -> None:
    os.kill(orlopd.pid, signal.SIGUSR1)
    # No traceback of an exception looks so: faulthandler's has no commas.
    waits = re.compile(r'^  File ".*/orlop/daemon/lifecycle\.py", line \d+ in wait$', re.M)
    orlopd.wait_for(lambda: waits.search(orlopd.log.read_text()) is not None)
    assert len(re.findall("^Thread 0x", orlopd.log.read_text(), re.M)) > 1
    assert "Server:" in orlopd.ctr("version").stdout


def test_folders_are_private(orlopd: Orlopd) -> None:
    assert orlopd.root.stat().st_mode & 0o777 == 0o700
    assert orlopd.state.stat().st_mode & 0o777 == 0o711
    for name in ("orlop.sock", "orlop.sock.ttrpc"):
        assert (orlopd.state / name).stat().st_mode & 0o777 == 0o600


def test_debians_shim_runs_under_orlopd(orlopd: Orlopd, busybox: str) -> None:
    shim = "/usr/bin/containerd-shim-runc-v2"
    done = orlopd.ctr("run", "--rm", "--runtime", shim, busybox, "theirs", "echo", "by their shim")
    assert done.stdout == "by their shim\n"
    orlopd.ctr("run", "-d", "--runtime", shim, busybox, "theirs", "sleep", "1000")
    shown = orlopd.ctr("tasks", "exec", "--exec-id", "e", "theirs", "echo", "inside")
    assert shown.stdout == "inside\n"
    orlopd.kill9()
    orlopd.start()
    orlopd.wait_for(lambda: "RUNNING" in orlopd.ctr("tasks", "ls").stdout)
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "theirs")
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout)
    assert "exit code 137" in orlopd.ctr("tasks", "rm", "theirs").stderr
    orlopd.ctr("containers", "rm", "theirs")


def test_an_unknown_runtime_is_named(orlopd: Orlopd, busybox: str) -> None:
    done = orlopd.ctr(
        "run", "--rm", "--runtime", "io.containerd.nope.v1", busybox, "x", "true", check=False
    )
    assert done.returncode != 0
    assert "containerd-shim-nope-v1" in done.stderr


@pytest.mark.parametrize("taken", ["grpc", "ttrpc", "metrics"])
def test_an_address_that_is_taken_is_told(taken: str) -> None:
    """In one line, whatever had been made until then."""
    with TemporaryDirectory(prefix="o-") as folder:  # the paths of sockets must be short
        _check_taken(Path(folder), taken)


def _check_taken(tmp_path: Path, taken: str) -> None:
    ours = {"grpc": f"{tmp_path}/orlop.sock", "ttrpc": f"{tmp_path}/orlop.sock.ttrpc"}
    with socket.create_server(("127.0.0.1", 0)) as tcp, ExitStack() as stack:
        ours["metrics"] = f"127.0.0.1:{tcp.getsockname()[1]}"
        if taken != "metrics":
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(ours[taken])
            unix.listen()
        config = tmp_path / "config.toml"
        config.write_text(
            f'root = "{tmp_path}/root"\nstate = "{tmp_path}/state"\n'
            f'[grpc]\naddress = "{ours["grpc"]}"\n'
            + (f'[metrics]\naddress = "{ours["metrics"]}"\n' if taken == "metrics" else "")
        )
        second = subprocess.run(
            [ORLOPD, "--config", str(config)],
            capture_output=True, text=True, timeout=patient(60), check=False,
        )  # fmt: skip
    assert second.returncode == 1
    lines = second.stderr.splitlines()
    (line,) = [each for each in lines if " level=info " not in each]  # which snapshotters work
    assert ours[taken] in line
