"""A root that others have spoiled, or have: a clear error, a clean next start, nothing lost."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from orlop.errors import InvalidArgument, NotFound
from orlop.wire.services import snapshots_pb2
from tests.daemon_fixture import Orlopd

pytestmark = [pytest.mark.root, pytest.mark.fresh]


def test_a_second_daemon_is_turned_away(orlopd: Orlopd, busybox: str) -> None:
    state = orlopd.folder / "other"
    command = [*orlopd.command()[:3], "--state", str(state)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f'root "{orlopd.root}" is in use by another orlopd, pid {orlopd.pid}' in second.stderr
    assert "Traceback" not in second.stderr
    assert orlopd.orlop("run", "--rm", busybox, "echo", "well").stdout == "well\n"
    assert orlopd.orlop("store", "check").stdout == ""


def test_a_snapshot_that_lost_its_folder(orlopd: Orlopd, busybox: str) -> None:
    """The next start is as ever; who needs it is told, and it can be made anew."""
    orlopd.orlop("run", "--rm", busybox, "true")
    orlopd.stop()
    (base,) = orlopd.root.glob("snapshots/overlayfs/snapshots/*")
    shutil.rmtree(base)
    orlopd.start()
    failed = orlopd.orlop("run", "--rm", busybox, "true", check=False)
    assert failed.returncode and "no such file or directory" in failed.stderr.lower()
    assert "Traceback" not in failed.stderr
    orlopd.orlop("store", "check", "--repair", "--drop")
    assert orlopd.orlop("run", "--rm", busybox, "echo", "anew").stdout == "anew\n"
    assert orlopd.orlop("store", "check").stdout == ""


@pytest.mark.parametrize("lost", ["content", "snapshots/overlayfs", "metadata.db"])
def test_a_part_that_is_missing_at_one_start(orlopd: Orlopd, busybox: str, lost: str) -> None:
    """A disk that was not mounted, a database that was removed: nothing goes, until it is back."""
    orlopd.orlop("create", "--name", "one", busybox, "echo", "still here")
    orlopd.stop()
    aside = orlopd.folder / "aside"
    (orlopd.root / lost).rename(aside)
    for _ in range(2):
        started = subprocess.run(
            orlopd.command(), capture_output=True, text=True, timeout=60, check=False
        )
        assert started.returncode == 1
        assert f'"{orlopd.root}/metadata.db"' in started.stderr
        assert "to go on all the same" in started.stderr and "Traceback" not in started.stderr
    for path in orlopd.root.glob(f"{lost}*"):
        path.unlink()
    aside.rename(orlopd.root / lost)
    orlopd.start()
    assert orlopd.orlop("start", "-a", "one").stdout == "still here\n"
    orlopd.orlop("rm", "one")
    assert orlopd.orlop("store", "check").stdout == ""


def test_a_blob_edited_by_hand_is_not_unpacked(orlopd: Orlopd, busybox: str) -> None:
    """Other bytes of the same length pass the start; they are never made files of a container."""
    orlopd.stop()
    layer = max(orlopd.root.glob("content/blobs/*/*"), key=lambda path: path.stat().st_size)
    good = layer.read_bytes()
    layer.chmod(0o600)
    with layer.open("r+b") as file:
        file.seek(len(good) // 2)
        file.write(b"not what was there")
    orlopd.start()
    run = ("run", "--rm", "--snapshotter", "native", busybox, "box", "echo", "well")
    failed = orlopd.ctr(*run, check=False)
    assert failed.returncode and "Traceback" not in failed.stderr
    layer.write_bytes(good)
    assert orlopd.ctr(*run).stdout == "well\n"
    assert orlopd.orlop("store", "check").stdout == ""


def test_a_layer_over_the_wrong_parent(orlopd: Orlopd) -> None:
    """A snapshot that was written on one parent is never committed on another."""
    with orlopd.connect() as connection:
        snapshots = connection.snapshots
        for name in ("one", "two"):
            snapshots.prepare(_prepare(f"{name}-new"))
            snapshots.commit(_commit(name, f"{name}-new"))
        snapshots.prepare(_prepare("top-new", "one"))
        with pytest.raises(InvalidArgument, match='snapshot "top-new" has another parent'):
            snapshots.commit(_commit("top", "top-new", "two"))
        with pytest.raises(NotFound, match='parent snapshot "none"'):
            snapshots.commit(_commit("top", "top-new", "none"))
        snapshots.commit(_commit("top", "top-new", "one"))
        for name in ("top", "one", "two"):
            snapshots.remove(snapshots_pb2.RemoveSnapshotRequest(snapshotter="overlayfs", key=name))


def _prepare(key: str, parent: str = "") -> snapshots_pb2.PrepareSnapshotRequest:
    return snapshots_pb2.PrepareSnapshotRequest(
        snapshotter="overlayfs", key=key, parent=parent, labels={"containerd.io/gc.root": "x"}
    )


def _commit(name: str, key: str, parent: str = "") -> snapshots_pb2.CommitSnapshotRequest:
    return snapshots_pb2.CommitSnapshotRequest(
        snapshotter="overlayfs",
        name=name,
        key=key,
        parent=parent,
        labels={"containerd.io/gc.root": "x"},
    )
