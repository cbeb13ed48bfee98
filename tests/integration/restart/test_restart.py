"""Containers with restart labels under a real orlopd and runc."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orlop.client import Connection, containers
from orlop.wire.services.containers_pb2 import DeleteContainerRequest, UpdateContainerRequest
from tests.daemon_fixture import Orlopd, serving
from tests.killing import kill
from tests.metrics_fixture import Scraped
from tests.patience import patient

pytestmark = pytest.mark.root

_LABEL = "containerd.io/restart"


@pytest.fixture
def watchful(tmp_path: Path) -> Iterator[Orlopd]:
    """An orlopd that makes its rounds every second."""
    config = tmp_path / "config.toml"
    config.write_text('[restart]\ninterval = 1\n[metrics]\naddress = "127.0.0.1:0"\n')
    yield from serving(["--config", str(config)])


@pytest.fixture
def image(watchful: Orlopd, registry: str) -> str:
    name = f"{registry}/test/busybox:latest"
    watchful.orlop("pull", name)
    return name


def _run(daemon: Orlopd, image: str, script: str, log: Path | None = None, **labels: str) -> None:
    """A container "one" with restart labels, started by a client as clients do."""
    marks = {"status": "running", **({"loguri": f"file://{log}"} if log else {}), **labels}
    flags = [f"--label={_LABEL}.{key.replace('_', '-')}={value}" for key, value in marks.items()]
    uri = [f"--log-uri=file://{log}"] if log else ["--null-io"]
    daemon.ctr("run", "-d", *uri, *flags, image, "one", "sh", "-c", script)


def _label(daemon: Orlopd, **labels: str) -> None:
    daemon.ctr(
        "containers", "label", "one",
        *(f"{_LABEL}.{key.replace('_', '-')}={value}" for key, value in labels.items()),
    )  # fmt: skip


def _count(daemon: Orlopd) -> int:
    with daemon.connect() as connection:
        return int(containers.get(connection, "one").labels.get(f"{_LABEL}.count", "0"))


def _status(daemon: Orlopd) -> str:
    lines = [line.split() for line in daemon.ctr("tasks", "ls").stdout.splitlines()[1:]]
    return next((status for name, _, status in lines if name == "one"), "")


def _pid(daemon: Orlopd) -> int:
    lines = [line.split() for line in daemon.ctr("tasks", "ls").stdout.splitlines()[1:]]
    running = (int(pid) for name, pid, status in lines if (name, status) == ("one", "RUNNING"))
    return next(running, 0)


def _await_rounds(daemon: Orlopd, count: int = 2) -> None:
    """Until the monitor has looked so often at the one container that has labels for it."""

    def looks() -> float:
        return Scraped(daemon).scrape().total("orlop_restart_looks_total", reason="round")

    before = looks()
    daemon.wait_for(lambda: looks() > before + count)  # it may just have been at one


def _clear(daemon: Orlopd) -> None:
    _label(daemon, status="stopped")
    daemon.wait_for(lambda: _status(daemon) in ("", "STOPPED"))
    _remove(daemon)


def _remove(daemon: Orlopd) -> None:
    """Again, if it was just being started once more."""

    def removed() -> bool:
        daemon.ctr("tasks", "rm", "-f", "one", check=False)
        return daemon.ctr("containers", "rm", "one", check=False).returncode == 0

    daemon.wait_for(removed)


def test_always(watchful: Orlopd, image: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(watchful, image, "echo up; sleep 0.2", log, policy="always")
    watchful.wait_for(lambda: _count(watchful) >= 3)
    watchful.wait_for(lambda: log.read_text().count("up\n") >= 3)
    _clear(watchful)


@pytest.mark.parametrize("policy", ["always", ""])
def test_removed_while_it_comes_back(watchful: Orlopd, image: str, policy: str) -> None:
    """Whatever the monitor does just then, it is removed, and stays so."""
    for turn in range(5):
        _run(watchful, image, "true", policy=policy)
        watchful.wait_for(lambda: _count(watchful) >= 1)
        time.sleep(turn * 0.04)
        watchful.orlop("rm", "-f", "one")
        # What was just being started ends soon, too; nobody starts another.
        watchful.wait_for(lambda: _stays_stopped(watchful))
    assert not _status(watchful)


def test_removed_while_somebody_starts_it(
    watchful: Orlopd, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill, starts = containers._kill, iter((True, False))

    def killed_in_vain(connection: Connection, container: str) -> None:
        kill(connection, container)
        if next(starts):
            watchful.orlop("start", container)
        else:
            time.sleep(1)  # in which the monitor could start it once more

    _run(watchful, image, "sleep 1000")
    monkeypatch.setattr(containers, "_kill", killed_in_vain)
    with watchful.connect() as connection:
        containers.remove(connection, containers.get(connection, "one"), force=True)
    watchful.wait_for(lambda: _stays_stopped(watchful))  # what was just being started ends soon
    assert not _status(watchful)


def test_stopped_while_it_comes_back(watchful: Orlopd, image: str) -> None:
    for turn in range(5):
        _run(watchful, image, "sleep 0.05", policy="always")
        watchful.wait_for(lambda: _count(watchful) >= 1)
        time.sleep(turn * 0.04)
        watchful.orlop("stop", "one")
        watchful.wait_for(lambda: _stays_stopped(watchful))
        watchful.orlop("rm", "one")


@pytest.mark.parametrize("step", ["create", "delete"])
def test_removed_while_it_comes_back_and_the_daemon_ends(
    watchful: Orlopd, image: str, step: str
) -> None:
    """No record is left: nobody but the monitor knows of what it has started, and it takes it back.

    The daemon's end comes while the runtime is at a step of that.
    """
    held, hold = watchful.folder / "held", watchful.folder / "hold"
    for folder in (held, hold):
        folder.mkdir()
    wait = f"while [ -e {hold}/$each ]; do touch {held}/$each; sleep 0.05; done"
    runc = watchful.folder / "runc"
    runc.write_text(f'#!/bin/sh\nfor each; do {wait}; done\nexec runc "$@"\n')
    runc.chmod(0o755)
    watchful.ctr(
        "run", "-d", "--null-io", "--runc-binary", str(runc), f"--label={_LABEL}.status=running",
        image, "one", "sleep", "1000",
    )  # fmt: skip
    with watchful.connect() as connection:
        record = containers.get(connection, "one")
        # With it, it is the runtime that deletes, which it need not for others.
        hooks = {"poststop": [{"path": "/bin/true"}]}
        record.spec.value = json.dumps({**containers.spec_of(record), "hooks": hooks}).encode()
        connection.containers.update(UpdateContainerRequest(container=record))
    watchful.ctr("snapshots", "label", "one", "containerd.io/gc.root=once-its-record-is-gone")
    (hold / "create").touch()
    kill(_pid(watchful))
    watchful.wait_for((held / "create").exists)
    (hold / "delete").touch()
    with watchful.connect() as connection:
        connection.containers.delete(DeleteContainerRequest(id="one"))
    if step == "delete":
        (hold / "create").unlink()
    watchful.wait_for((held / step).exists)
    with ThreadPoolExecutor(1) as hand:
        stopping = hand.submit(watchful.stop)
        watchful.wait_for(lambda: "stopping on" in watchful.log.read_text())
        for each in hold.iterdir():
            each.unlink()
        stopping.result()
    watchful.wait_for(lambda: not watchful.leftovers())


def _stays_stopped(daemon: Orlopd) -> bool:
    """Whether it is, and for longer than the monitor waits; it may have begun before."""
    for _ in range(4):
        status = _status(daemon)
        being_made = not status and "bundles" in daemon.leftovers()
        if being_made or status not in ("", "STOPPED"):
            return False
        time.sleep(patient(0.3))
    return True


def test_stopped_and_started_with_a_status_alone(watchful: Orlopd, image: str) -> None:
    _run(watchful, image, "sleep 1000")
    watchful.orlop("stop", "-t", "0.1", "one")
    watchful.wait_for(lambda: _stays_stopped(watchful))
    watchful.orlop("start", "one")
    pid = _pid(watchful)
    kill(pid)
    watchful.wait_for(lambda: _pid(watchful) not in (0, pid))
    watchful.orlop("rm", "-f", "one")


def test_on_failure_so_often(watchful: Orlopd, image: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(watchful, image, "echo up; exit 3", log, policy="on-failure:2")
    watchful.wait_for(lambda: log.read_text() == "up\n" * 3 and _status(watchful) == "STOPPED")
    _await_rounds(watchful)
    assert log.read_text() == "up\n" * 3
    assert "exit code 3" in watchful.ctr("tasks", "rm", "one").stderr
    watchful.ctr("containers", "rm", "one")


def test_success_is_no_failure(watchful: Orlopd, image: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(watchful, image, "echo up", log, policy="on-failure")
    watchful.wait_for(lambda: _status(watchful) == "STOPPED")
    _await_rounds(watchful)
    assert log.read_text() == "up\n"
    _clear(watchful)


def test_unless_stopped(watchful: Orlopd, image: str) -> None:
    _run(watchful, image, "sleep 1000", policy="unless-stopped")
    first = _pid(watchful)
    watchful.ctr("tasks", "kill", "-s", "SIGKILL", "one")
    watchful.wait_for(lambda: _pid(watchful) not in (0, first))
    _label(watchful, explicitly_stopped="true")
    watchful.ctr("tasks", "kill", "-s", "SIGKILL", "one")
    watchful.wait_for(lambda: _status(watchful) == "STOPPED")
    _await_rounds(watchful)
    assert _status(watchful) == "STOPPED"
    _label(watchful, explicitly_stopped="false")  # the next round sees it
    watchful.wait_for(lambda: _status(watchful) == "RUNNING")
    _clear(watchful)


def test_what_is_to_be_stopped_is(watchful: Orlopd, image: str) -> None:
    _run(watchful, image, "trap '' TERM; sleep 1000")
    _label(watchful, status="stopped")
    watchful.wait_for(lambda: _status(watchful) == "")
    _clear(watchful)


def test_it_ended_while_no_daemon_was_there(watchful: Orlopd, image: str) -> None:
    _run(watchful, image, "sleep 1000", policy="always")
    first = _pid(watchful)
    watchful.kill9()
    kill(first)
    watchful.start()
    watchful.wait_for(lambda: _pid(watchful) not in (0, first))
    assert _count(watchful) == 1
    _clear(watchful)


def test_a_paused_container_is_left_alone(watchful: Orlopd, image: str) -> None:
    _run(watchful, image, "sleep 1000", policy="always")
    watchful.ctr("tasks", "pause", "one")
    _await_rounds(watchful)
    assert _status(watchful) == "PAUSED"
    watchful.ctr("tasks", "resume", "one")
    assert _count(watchful) == 0
    _clear(watchful)


def test_a_start_that_fails_is_tried_again(watchful: Orlopd, image: str) -> None:
    watchful.ctr(
        "containers", "create", f"--label={_LABEL}.status=running",
        f"--label={_LABEL}.policy=on-failure:2", image, "one", "/no/such/program",
    )  # fmt: skip
    _await_rounds(watchful)  # a client may be about to start it
    assert _count(watchful) == 0
    _label(watchful, policy="always")
    watchful.wait_for(lambda: _count(watchful) >= 2, timeout=25)
    assert "/no/such/program" in watchful.log.read_text()
    _clear(watchful)


def test_a_policy_that_makes_no_sense(watchful: Orlopd, image: str) -> None:
    _run(watchful, image, "true", policy="sometimes")
    _await_rounds(watchful)
    watchful.wait_for(lambda: "is none of no, always" in watchful.log.read_text())
    assert watchful.log.read_text().count("is none of") == 1
    assert _status(watchful) == "STOPPED"
    watchful.ctr("tasks", "rm", "one")
    watchful.ctr("containers", "rm", "one")


def test_a_container_that_is_removed_stays_removed(watchful: Orlopd, image: str) -> None:
    _run(watchful, image, "exit 1", policy="always")
    watchful.wait_for(lambda: _count(watchful) >= 2)
    _clear(watchful)
    watchful.ctr("run", "-d", f"--label={_LABEL}.status=running", image, "two", "sleep", "1000")
    _await_rounds(watchful)
    assert _status(watchful) == ""
    watchful.orlop("rm", "-f", "two")


def test_clients_are_told_of_the_policies(watchful: Orlopd) -> None:
    shown = watchful.ctr("plugins", "ls", "-d", "id==restart").stdout
    for policy in ("no", "always", "on-failure", "unless-stopped"):
        assert policy in shown
