"""orlopd as a service of systemd, by the unit that the project ships."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.client import Connection
from orlop.wire.services import tasks_pb2
from tests.daemon_fixture import Orlopd
from tests.patience import patient
from tests.vm.boxes import Boxes
from tests.vm.disk import CHECKOUT

UNIT = Path("/run/systemd/system/orlopd.service")
PROGRAM = Path(sys.executable).parent / "orlopd"


class Service(Orlopd):
    """The daemon that systemd runs, at its usual place, as what the helpers take for one."""

    def __init__(self) -> None:
        super().__init__()
        self.address = "/run/orlop/orlop.sock"


def _systemctl(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["systemctl", *arguments],
        capture_output=True, text=True, check=False, timeout=patient(60),
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def service() -> Iterator[Service]:
    text = (CHECKOUT / "packaging/orlopd.service").read_text()
    UNIT.parent.mkdir(exist_ok=True)
    UNIT.write_text(text.replace("/usr/local/bin/orlopd", str(PROGRAM)))
    _systemctl("daemon-reload")
    made = Service()
    try:
        yield made
    finally:
        _systemctl("stop", "orlopd")
        made.discard()
        UNIT.unlink()
        _systemctl("daemon-reload")


def _main_pid() -> int:
    return int(_systemctl("show", "--property", "MainPID", "--value", "orlopd"))


@pytest.mark.short
def test_a_restart_of_the_service_leaves_containers_alone(service: Service) -> None:
    _systemctl("start", "orlopd")
    # Started means ready: the daemon answers at once.
    Connection(service.address).close()
    with Boxes(service).box() as box:
        first = _main_pid()
        _systemctl("restart", "orlopd")
        assert _main_pid() != first
        box.connection = service.connect()
        task = box.connection.tasks.get(tasks_pb2.GetRequest(container_id=box.id)).process
        assert task.pid == box.pid
        assert box.status() == "RUNNING"
        assert Path(f"/proc/{box.pid}/comm").read_text().strip() == "sleep"
    assert _systemctl("is-failed", "orlopd", check=False) == "active"
