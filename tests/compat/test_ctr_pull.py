"""Debian's ctr pulls from a real registry into orlopd, by itself: content, snapshots and diffs."""

from __future__ import annotations

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


SNAPSHOTTERS = ("overlayfs", "erofs", "native")


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
def test_images_pull_and_run(orlopd: Orlopd, registry: str, snapshotter: str) -> None:
    name, by = f"{registry}/test/busybox:latest", ("--snapshotter", snapshotter)
    orlopd.ctr("images", "pull", "--plain-http", *by, name)
    assert name in orlopd.ctr("images", "ls", "-q").stdout
    assert " complete (" in orlopd.ctr("images", "check", *by).stdout
    assert orlopd.ctr("run", "--rm", *by, name, "job", "echo", "pulled").stdout == "pulled\n"
    shown = orlopd.ctr("snapshots", *by, "usage").stdout
    assert len(shown.splitlines()) == 2, shown


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
def test_snapshots_by_hand(orlopd: Orlopd, registry: str, snapshotter: str) -> None:
    name, by = f"{registry}/test/busybox:latest", ("--snapshotter", snapshotter)
    orlopd.ctr("images", "pull", "--plain-http", *by, name)
    orlopd.ctr("run", *by, name, "job", "sh", "-c", "echo made > /made; rm /bin/true")
    snapshots = ("snapshots", *by)
    orlopd.ctr(*snapshots, "commit", "mine", "job")
    orlopd.ctr("containers", "rm", "--keep-snapshot", "job")
    assert '"Kind": "Committed"' in orlopd.ctr(*snapshots, "info", "mine").stdout
    tree = orlopd.ctr(*snapshots, "tree").stdout.splitlines()
    assert tree[-1].strip("\\_ ") == "mine"
    assert "mine" in orlopd.ctr(*snapshots, "usage", "mine").stdout
    orlopd.ctr("run", "--rm", *by, name, "other", "test", "!", "-e", "/made")
    orlopd.ctr(*snapshots, "rm", "mine")
    assert len(orlopd.ctr(*snapshots, "ls").stdout.splitlines()) == 2


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
