"""Healthchecks of real containers."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from orlop.wire.services import health_pb2
from tests.daemon_fixture import Orlopd
from tests.events_heard import hearing

pytestmark = pytest.mark.root

QUICK = ["--health-interval", "100ms"]
SLEEP = ["sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"]


def run(daemon: Orlopd, image: str, *options: str, name: str = "one") -> None:
    daemon.orlop("run", "-d", "--name", name, *options, image, *SLEEP)


def health(daemon: Orlopd, name: str = "one") -> dict[str, Any]:
    (shown,) = json.loads(daemon.orlop("inspect", name).stdout)
    found = shown["State"].get("Health")
    assert isinstance(found, dict), shown["State"]
    return found


def becomes(daemon: Orlopd, status: str, name: str = "one") -> None:
    daemon.wait_for(lambda: status_of(daemon, name) == status)


def status_of(daemon: Orlopd, name: str = "one") -> str:
    """The status; "" while nobody has begun to look after it."""
    (shown,) = json.loads(daemon.orlop("inspect", name).stdout)
    return str(shown["State"].get("Health", {}).get("Status", ""))


def execs(daemon: Orlopd, name: str = "one") -> list[str]:
    """The health execs that run in a container."""
    shown = daemon.ctr("tasks", "ps", name).stdout
    return [line for line in shown.splitlines() if "health-" in line]


def fifos(daemon: Orlopd) -> list[Path]:
    return list((daemon.state / "health-fifo").iterdir())


def test_healthy_and_unhealthy_and_healthy_again(orlopd: Orlopd, busybox: str) -> None:
    check = 'cat /state; test "$(cat /state)" = well'
    options = ["--health-cmd", check, "--health-retries", "2", "--health-timeout", "1000h"]
    run(orlopd, busybox, *QUICK, *options)
    orlopd.wait_for(lambda: bool(status_of(orlopd)))
    assert health(orlopd)["Status"] in ("starting", "unhealthy")
    orlopd.orlop("exec", "one", "sh", "-c", "echo well > /state")
    becomes(orlopd, "healthy")
    assert "(healthy)" in orlopd.orlop("ps").stdout
    orlopd.orlop("exec", "one", "sh", "-c", "echo ill > /state")
    becomes(orlopd, "unhealthy")
    assert "(unhealthy)" in orlopd.orlop("ps").stdout
    for wanted, count in (("unhealthy", 1), ("healthy", 0), ("none", 0)):
        shown = orlopd.orlop("ps", "-q", "--filter", f"health={wanted}").stdout
        assert len(shown.splitlines()) == count
    orlopd.wait_for(lambda: len(health(orlopd)["Log"]) == 5)
    report = health(orlopd)
    assert report["FailingStreak"] >= 2
    last = report["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (1, "ill\n")
    with orlopd.connect() as connection:
        (listed,) = connection.health.list(health_pb2.ListHealthRequest()).health
    assert (listed.container_id, listed.status, list(listed.results)) == ("one", "unhealthy", [])
    assert last["Start"] < last["End"]
    orlopd.orlop("exec", "one", "sh", "-c", "echo well > /state")
    becomes(orlopd, "healthy")
    assert health(orlopd)["FailingStreak"] == 0
    orlopd.orlop("rm", "-f", "one")
    orlopd.wait_for(lambda: not list((orlopd.state / "health").glob("*/*")))


def test_a_check_that_hangs_or_cannot_be_run(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, *QUICK, "--health-cmd", "echo so far; exec sleep 1000",
        "--health-timeout", "1s", "--health-retries", "1")  # fmt: skip
    becomes(orlopd, "unhealthy")
    orlopd.wait_for(lambda: len(health(orlopd)["Log"]) == 5)
    found = health(orlopd)["Log"]
    assert {each["ExitCode"] for each in found} == {-1}
    assert "Health check exceeded timeout (1s): so far\n" in [each["Output"] for each in found]
    assert len(execs(orlopd)) <= 1
    label = json.dumps({"Test": ["CMD", "/nowhere"], "Interval": 10**8})
    run(orlopd, busybox, "--label", f"orlop/healthcheck={label}", name="two")
    becomes(orlopd, "unhealthy", "two")
    assert "no such file" in health(orlopd, "two")["Log"][0]["Output"]
    assert health(orlopd, "two")["Log"][0]["ExitCode"] == -1
    run(orlopd, busybox, *QUICK, "--health-cmd", "yes", "--health-timeout", "300ms", name="three")
    orlopd.wait_for(lambda: bool(status_of(orlopd, "three")))
    orlopd.wait_for(lambda: len(health(orlopd, "three")["Log"]) > 0)
    assert health(orlopd, "three")["Log"][0]["Output"].startswith("Health check exceeded")
    orlopd.orlop("rm", "-f", "one", "two", "three")


def test_output_is_cut(orlopd: Orlopd, busybox: str) -> None:
    """However much it is; and a child that keeps the output open does not hold the check up."""
    check = "printf '\\377'; sleep 1000 & head -c 300000 /dev/zero | tr '\\0' x"
    run(orlopd, busybox, *QUICK, "--health-cmd", check)
    becomes(orlopd, "healthy")
    assert health(orlopd)["Log"][0]["Output"] == "\ufffd" + "x" * 4095 + "..."
    orlopd.orlop("rm", "-f", "one")


def test_paused_containers_are_not_checked(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, *QUICK, "--health-cmd", "true")
    becomes(orlopd, "healthy")
    orlopd.orlop("pause", "one")
    orlopd.wait_for(lambda: fifos(orlopd) == [])  # what had just ended is being noted
    time.sleep(0.5)
    before = health(orlopd)
    time.sleep(1)
    assert health(orlopd) == before
    assert all(each["ExitCode"] == 0 for each in before["Log"])
    orlopd.wait_for(lambda: fifos(orlopd) == [])
    orlopd.orlop("unpause", "one")
    orlopd.wait_for(lambda: health(orlopd) != before)
    orlopd.orlop("rm", "-f", "one")


def test_a_check_that_runs_when_its_container_is_paused(orlopd: Orlopd, busybox: str) -> None:
    """It counts for nothing, and nothing is left of it."""
    run(orlopd, busybox, *QUICK, "--health-cmd", "sleep 1000")
    orlopd.wait_for(lambda: bool(execs(orlopd)))
    (hanging,) = execs(orlopd)
    orlopd.orlop("pause", "one")
    orlopd.wait_for(lambda: fifos(orlopd) == [])
    orlopd.orlop("unpause", "one")
    orlopd.wait_for(lambda: hanging not in execs(orlopd))
    assert health(orlopd)["Log"] == []
    orlopd.orlop("rm", "-f", "one")


def test_nothing_is_left_when_it_stops(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, *QUICK, "--health-cmd", "sleep 1000")
    orlopd.wait_for(lambda: bool(execs(orlopd)))
    orlopd.orlop("stop", "one")
    orlopd.wait_for(lambda: fifos(orlopd) == [])
    assert health(orlopd)["Log"] == []
    orlopd.orlop("start", "one")
    becomes(orlopd, "starting")
    orlopd.orlop("rm", "-f", "one")


def test_the_start_period(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox, "--health-cmd", "test -e /up", "--health-interval", "1h",
        "--health-start-period", "1h", "--health-start-interval", "100ms",
        "--health-retries", "1")  # fmt: skip
    becomes(orlopd, "starting")
    orlopd.wait_for(lambda: len(health(orlopd)["Log"]) == 5)
    found = health(orlopd)
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    orlopd.orlop("exec", "one", "touch", "/up")
    becomes(orlopd, "healthy")
    assert "(health: starting)" not in orlopd.orlop("ps").stdout
    orlopd.orlop("rm", "-f", "one")


@pytest.mark.parametrize("hard", [False, True])
def test_it_survives_the_daemon(orlopd: Orlopd, busybox: str, hard: bool) -> None:
    """Status and results are there again; a check that nobody awaits any more is ended."""
    check = "if [ -e /hang ]; then sleep 1000; fi"
    run(orlopd, busybox, *QUICK, "--health-cmd", check)
    becomes(orlopd, "healthy")
    orlopd.orlop("exec", "one", "touch", "/hang")
    # Not the shell's, whose words these are as well.
    hangs = re.compile(r" sleep 1000$", re.MULTILINE)
    orlopd.wait_for(lambda: hangs.search(orlopd.orlop("top", "one").stdout) is not None)
    orlopd.wait_for(lambda: len(health(orlopd)["Log"]) > 0)
    before, (hanging,) = health(orlopd), execs(orlopd)
    if hard:
        orlopd.kill9()
    orlopd.restart()
    after = health(orlopd)
    assert (after["Status"], after["Log"]) == (before["Status"], before["Log"])
    orlopd.wait_for(lambda: hanging not in execs(orlopd))
    orlopd.orlop("exec", "one", "rm", "/hang")
    orlopd.orlop("rm", "-f", "one")


def test_events_that_every_client_understands(orlopd: Orlopd, busybox: str) -> None:
    with hearing(orlopd, 'topic=="/orlop/health"') as heard:
        run(orlopd, busybox, *QUICK, "--health-cmd", "true")
        orlopd.wait_for(lambda: bool(heard.lines()))
        line = heard.lines()[0]
    assert " /orlop/health " in line
    assert '"labels":{"orlop/health":"healthy"}' in line
    orlopd.orlop("rm", "-f", "one")


def test_a_label_that_changes(orlopd: Orlopd, busybox: str) -> None:
    run(orlopd, busybox)
    (shown,) = json.loads(orlopd.orlop("inspect", "one").stdout)
    assert "Health" not in shown["State"]
    label = json.dumps({"Test": ["CMD", "true"], "Interval": 10**8})
    orlopd.ctr("containers", "label", "one", f"orlop/healthcheck={label}")
    becomes(orlopd, "healthy")
    orlopd.ctr("containers", "label", "one", "orlop/healthcheck=")
    orlopd.wait_for(lambda: not list((orlopd.state / "health").glob("*/*")))
    orlopd.orlop("rm", "-f", "one")


@pytest.fixture
def checked_image(orlopd: Orlopd, layout: Path, tmp_path: Path) -> str:
    """busybox with a HEALTHCHECK, as Docker builds it."""
    folder = tmp_path / "checked"
    shutil.copytree(layout, folder)

    def blob(descriptor: dict[str, Any]) -> dict[str, Any]:
        algorithm, digest = descriptor["digest"].split(":")
        found: dict[str, Any] = json.loads((folder / "blobs" / algorithm / digest).read_text())
        return found

    def put(descriptor: dict[str, Any], document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (folder / "blobs/sha256" / digest).write_bytes(data)
        descriptor.update(digest=f"sha256:{digest}", size=len(data))

    index = json.loads((folder / "index.json").read_text())
    manifest = blob(index["manifests"][0])
    config = blob(manifest["config"])
    config["config"]["Healthcheck"] = {"Test": ["CMD-SHELL", "echo $0"], "Interval": 10**8}
    config["config"]["Shell"] = ["/bin/sh", "-ec"]
    put(manifest["config"], config)
    put(index["manifests"][0], manifest)
    index["manifests"][0]["annotations"] = {"io.containerd.image.name": "example.test/checked:1"}
    (folder / "index.json").write_text(json.dumps(index))
    archive = tmp_path / "checked.tar"
    with tarfile.open(archive, "w") as tar:
        for path in folder.iterdir():
            tar.add(path, arcname=path.name)
    orlopd.orlop("load", "-i", str(archive))
    return "example.test/checked:1"


def test_what_the_image_asks_for(orlopd: Orlopd, checked_image: str) -> None:
    run(orlopd, checked_image)
    becomes(orlopd, "healthy")
    assert health(orlopd)["Log"][0]["Output"] == "/bin/sh\n"
    run(orlopd, checked_image, "--no-healthcheck", name="two")
    (shown,) = json.loads(orlopd.orlop("inspect", "two").stdout)
    assert "Health" not in shown["State"]
    orlopd.orlop("rm", "-f", "one", "two")
