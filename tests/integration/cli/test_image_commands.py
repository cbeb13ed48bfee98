"""Looking at images with the orlop command, and clearing them away."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def test_inspect_and_history(orlopd: Orlopd, busybox: str) -> None:
    (shown,) = json.loads(orlopd.orlop("image", "inspect", "busybox").stdout)
    assert shown["name"] == busybox
    (platform,) = shown["platforms"]
    assert platform["complete"]
    assert platform["missing"] == []
    assert platform["platform"] == "linux/amd64"
    assert platform["size"] > sum(layer["size"] for layer in platform["layers"]) > 0
    assert platform["config"]["rootfs"]["type"] == "layers"
    layer = platform["layers"][0]["digest"]
    orlopd.ctr("content", "rm", layer)
    (shown,) = json.loads(orlopd.orlop("image", "inspect", "busybox").stdout)
    assert shown["platforms"][0]["missing"] == [layer]
    assert not shown["platforms"][0]["complete"]
    history = orlopd.orlop("image", "history", "busybox").stdout.splitlines()
    assert history[0].split()[:3] == ["CREATED", "CREATED", "BY"]
    assert any("MiB" in line or "KiB" in line for line in history[1:])
    both = orlopd.orlop("image", "inspect", "busybox", "nothing", check=False)
    assert both.returncode == 1
    assert [each["name"] for each in json.loads(both.stdout)] == [busybox]


def test_manifest_here_and_in_the_registry(orlopd: Orlopd, registry: str) -> None:
    name = f"{registry}/test/busybox:latest"
    remote = orlopd.orlop("manifest", "inspect", name).stdout
    assert "layers" in json.loads(remote)
    orlopd.orlop("pull", "-q", name)
    assert orlopd.orlop("manifest", "inspect", name).stdout == remote
    (shown,) = json.loads(orlopd.orlop("manifest", "inspect", "--verbose", name).stdout)
    assert shown["digest"] == "sha256:" + hashlib.sha256(remote.encode()).hexdigest()
    missing = orlopd.orlop("manifest", "inspect", f"{registry}/test/nothing:1", check=False)
    assert missing.returncode == 1
    assert "not found" in missing.stderr


def test_prune(orlopd: Orlopd, busybox: str) -> None:
    (shown,) = json.loads(orlopd.orlop("image", "inspect", busybox).stdout)
    dangling = f"docker.io/library/busybox@{shown['digest']}"
    orlopd.ctr("images", "tag", busybox, dangling)
    orlopd.orlop("tag", busybox, "unused:1")
    orlopd.orlop("run", "-d", "--name", "user", busybox, "true")

    def names() -> set[str]:
        return set(orlopd.orlop("images", "-q").stdout.split())

    assert orlopd.orlop("image", "prune", input="n\n", check=False).returncode == 1
    assert dangling in names()
    for bad in ("until=soon", "size=1", "label="):
        assert "filter" in orlopd.orlop("image", "prune", "--filter", bad, check=False).stderr
    orlopd.orlop("image", "prune", "-f", "--filter", "until=1h")
    orlopd.orlop("image", "prune", "-f", "--filter", "label=no.such")
    assert dangling in names()
    assert dangling in orlopd.orlop("image", "prune", input="y\n").stdout
    assert names() == {busybox, "docker.io/library/unused:1"}
    orlopd.orlop("image", "prune", "-af")
    assert names() == {busybox}
    orlopd.orlop("rm", "-f", "user")
