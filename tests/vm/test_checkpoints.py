"""Checkpoints and restores by the real criu, which wants another kernel than the host's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving
from tests.integration.network.conftest import daemon, lab, outside  # noqa: F401
from tests.integration.network.lab import Host
from tests.integration.network.networked import Networked, fetch, refused

COUNT = "n=0; while true; do echo $n > /next; mv /next /count; n=$((n+1)); sleep 0.2; done"
DEBIANS = "/usr/bin/containerd-shim-runc-v2"


@pytest.fixture(params=["own-shim", "debians-shim"])
def orlopd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orlopd]:
    shim = "orlop" if request.param == "own-shim" else DEBIANS
    config = tmp_path / "config.toml"
    config.write_text(f'[runtimes]\n"io.containerd.runc.v2" = "{shim}"\n')
    yield from serving(["--config", str(config)])


@pytest.fixture(params=["null-io", "fifos"])
def counter(
    orlopd: Orlopd, busybox: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """A container that counts, in a file and in its memory; its output goes to nobody, or fifos."""
    io = ["--null-io"] if request.param == "null-io" else ["--fifo-dir", str(tmp_path)]
    orlopd.ctr("run", "-d", *io, busybox, "counter", "sh", "-c", COUNT)
    orlopd.wait_for(lambda: _count(orlopd, "counter") > 3, 60)
    yield "counter"
    for name in ("counter", "again"):
        orlopd.ctr("tasks", "rm", "-f", name, check=False)
        orlopd.ctr("containers", "rm", name, check=False)


def _count(orlopd: Orlopd, name: str) -> int:
    shown = orlopd.ctr("tasks", "exec", "--exec-id", "count", name, "cat", "/count", check=False)
    return int(shown.stdout) if shown.stdout.strip().isdecimal() else -1


def test_ctr_checkpoints_and_restores_live(orlopd: Orlopd, counter: str) -> None:
    """Memory, files and image: the restored one counts on from where the first one was."""
    reference = "docker.io/library/counter:checkpoint"
    orlopd.ctr("containers", "checkpoint", "--task", "--rw", "--image", counter, reference)
    assert _count(orlopd, counter) > 3  # it runs on
    manifest = orlopd.ctr("images", "ls", f"name=={reference}").stdout
    assert "application/vnd.oci.image.index.v1+json" in manifest
    before = _count(orlopd, counter)
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", counter)
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout, 60)
    orlopd.ctr("tasks", "rm", counter, check=False)
    orlopd.ctr("containers", "rm", counter)
    orlopd.ctr("containers", "restore", "--rw", "--live", "again", reference)
    assert re.search(r"again\s+[1-9]\d*\s+RUNNING", orlopd.ctr("tasks", "ls").stdout)
    first = _count(orlopd, "again")
    assert 3 < first < before + 1000
    orlopd.wait_for(lambda: _count(orlopd, "again") > first, 60)


def test_images_in_a_folder(orlopd: Orlopd, counter: str, tmp_path: Path) -> None:
    """`--image-path` and `--exit`: nothing becomes content, and the task ends."""
    images = tmp_path / "images"
    blobs = orlopd.ctr("content", "ls", "-q").stdout
    orlopd.ctr("tasks", "checkpoint", "--image-path", str(images), "--exit", counter)
    assert (images / "inventory.img").exists()
    new = set(orlopd.ctr("content", "ls", "-q").stdout.split()) - set(blobs.split())
    assert len(new) <= 1  # the client's own index
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout, 60)


@pytest.mark.parametrize("orlopd", ["own-shim"], indirect=True)
def test_orlop_as_docker(orlopd: Orlopd, busybox: str) -> None:
    """What it prints after the restore follows what it printed before, in one log."""
    script = "n=0; while true; do echo $n; n=$((n+1)); sleep 0.2; done"
    orlopd.orlop("run", "-d", "--name", "speaker", busybox, "sh", "-c", script)
    orlopd.wait_for(lambda: len(_log(orlopd)) > 5, 60)
    orlopd.orlop("checkpoint", "create", "speaker", "one")
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout, 60)
    before = _log(orlopd)
    orlopd.orlop("start", "--checkpoint", "one", "speaker")
    orlopd.wait_for(lambda: len(_log(orlopd)) > len(before) + 5, 60)
    after = _log(orlopd)
    assert [int(line) for line in after] == list(range(len(after)))
    orlopd.orlop("rm", "-f", "speaker")


def _log(orlopd: Orlopd) -> list[str]:
    return orlopd.orlop("logs", "speaker").stdout.splitlines()


def test_a_restored_one_is_in_its_networks_again(
    daemon: Networked,  # noqa: F811
    outside: Host,  # noqa: F811
) -> None:
    """With its port, its names and its addresses, the wished ones the same."""
    daemon.orlop("network", "create", "--subnet", "10.9.0.0/24", "back")
    places = [{"network": "back", "ip": "10.9.0.77"}, {"network": "bridge"}]
    daemon.box("web", networks=places, ports=[{"hostPort": 8080, "containerPort": 80}])
    daemon.box("near", "sleep", "100000")
    daemon.within("web", "sh", "-c", "echo kept > /w/index.html")
    before = daemon.pid_of("web")
    daemon.orlop("checkpoint", "create", "web", "one", timeout=300)
    daemon.wait_for(lambda: daemon.gone("web"), 60)
    assert refused("http://192.168.7.1:8080", outside)
    daemon.orlop("start", "--checkpoint", "one", "web", timeout=300)
    assert daemon.pid_of("web") != before
    assert fetch("http://192.168.7.1:8080", outside) == "kept"
    assert fetch("http://127.0.0.1:8080") == "kept"
    assert "10.9.0.77" in daemon.inspect("web").endpoints[0].addresses
    assert daemon.within("near", "wget", "-qO-", "http://web").strip() == "kept"
    daemon.within("web", "ping", "-c1", "-W20", "127.0.0.1")
    daemon.within("web", "ping", "-c1", "-W20", "192.168.7.2")
    daemon.orlop("stop", "-t", "0", "web")
    daemon.wait_for(lambda: daemon.gone("web"), 60)
