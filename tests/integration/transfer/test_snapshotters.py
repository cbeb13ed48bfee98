"""The same image, pulled for every snapshotter by orlop, is the same tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from orlop.client import leases
from orlop.client.pull import pull_image
from orlop.sys.mount import Mount, mount_all, unmount
from orlop.wire.services import snapshots_pb2
from tests import layered_image
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import run_registry, skopeo_copy
from tests.tree import Entry, describe

pytestmark = pytest.mark.root


def _tree(orlopd: Orlopd, snapshotter: str, target: Path) -> dict[str, Entry]:
    """What is in the topmost snapshot."""
    with orlopd.connect() as client, leases.held(client) as connection:
        found = [
            info
            for each in connection.snapshots.list(
                snapshots_pb2.ListSnapshotsRequest(snapshotter=snapshotter)
            )
            for info in each.info
        ]
        parents = {info.parent for info in found}
        (top,) = [info.name for info in found if info.name not in parents]
        view = connection.snapshots.view(
            snapshots_pb2.ViewSnapshotRequest(snapshotter=snapshotter, key="look", parent=top)
        )
        target.mkdir()
        mount_all(
            [Mount(m.type, m.source, m.target, tuple(m.options)) for m in view.mounts], target
        )
        try:
            return describe(target)
        finally:
            unmount(target)


def test_the_tree_is_the_same(orlopd: Orlopd, tmp_path: Path) -> None:
    """Its second layer has whiteouts, and implies folders, which look as in the first."""
    layered_image.build(tmp_path / "layout", 1 << 16)
    (tmp_path / "registry").mkdir()
    trees = {}
    with run_registry(tmp_path / "registry") as host:
        skopeo_copy(f"oci:{tmp_path}/layout:latest", f"docker://{host}/test/layered:1")
        for snapshotter in ("overlayfs", "erofs", "native"):
            with orlopd.connect() as connection:
                pull_image(connection, f"{host}/test/layered:1", snapshotter=snapshotter)
            trees[snapshotter] = _tree(orlopd, snapshotter, tmp_path / snapshotter)
    assert len(trees["overlayfs"]) > 40
    assert trees["erofs"] == trees["overlayfs"]
    # Files were written into its folders, which shows.
    assert _untimed(trees["native"]) == _untimed(trees["overlayfs"])


def _untimed(tree: dict[str, Entry]) -> dict[str, Entry]:
    return {
        path: entry[:3] + entry[4:] if str(entry[0]).startswith("0o4") else entry
        for path, entry in tree.items()
    }


def test_containers_on_images_outlive_the_daemon(orlopd: Orlopd, busybox_archive: Path) -> None:
    orlopd.orlop("load", "--snapshotter", "erofs", "-i", str(busybox_archive))
    name = "docker.io/library/busybox:latest"
    by = ("--snapshotter", "erofs")
    orlopd.orlop("run", "-d", *by, "--name", "one", name, "sleep", "600")
    for stop in (orlopd.kill9, orlopd.stop):
        stop()
        orlopd.start()
        assert orlopd.orlop("exec", "one", "echo", "there").stdout == "there\n"
        assert orlopd.orlop("run", "--rm", *by, name, "echo", "new").stdout == "new\n"
    orlopd.orlop("rm", "-f", "one")
