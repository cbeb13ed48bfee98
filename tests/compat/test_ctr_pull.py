"""Debian's ctr pulls from a real registry into orlopd, by itself: content, snapshots and diffs."""

from __future__ import annotations

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def test_images_pull_and_run(orlopd: Orlopd, registry: str) -> None:
    name = f"{registry}/test/busybox:latest"
    orlopd.ctr("images", "pull", "--plain-http", name)
    assert name in orlopd.ctr("images", "ls", "-q").stdout
    assert "complete" in orlopd.ctr("images", "check").stdout
    assert orlopd.ctr("run", "--rm", name, "job", "echo", "pulled").stdout == "pulled\n"


def test_content_fetch(orlopd: Orlopd, registry: str) -> None:
    orlopd.ctr("content", "fetch", "--plain-http", f"{registry}/test/busybox:latest")
    digests = orlopd.ctr("content", "ls", "-q").stdout.split()
    assert len(digests) == 3  # manifest, config, one layer
    assert len(orlopd.ctr("snapshots", "ls").stdout.splitlines()) == 1


def test_a_missing_image(orlopd: Orlopd, registry: str) -> None:
    failed = orlopd.ctr("images", "pull", "--plain-http", f"{registry}/test/none:1", check=False)
    assert failed.returncode != 0
    assert "not found" in failed.stderr
    assert orlopd.ctr("content", "ls", "-q").stdout == ""
