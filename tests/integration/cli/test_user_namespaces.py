"""Containers whose root is nobody on this host, by mounts with mapped ids or by a copy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orlop.client import leases
from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.sys.mount import Mount, mount_all, unmount
from orlop.wire.services import snapshots_pb2
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

IDS = ("--userns", "200000:65536")
MAPPED = {
    "containerd.io/snapshot/uidmapping": "0:200000:65536",
    "containerd.io/snapshot/gidmapping": "0:200000:65536",
}


@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs", "native"])
def test_root_inside_is_nobody_outside(orlopd: Orlopd, busybox: str, snapshotter: str) -> None:
    orlopd.folder.chmod(0o711)  # nobody has to get to the container's root by its path
    script = (
        "id -u; stat -c '%u %g' /bin /home/sailor /etc/passwd; touch /made; chown 5:6 /made;"
        "stat -c '%u %g' /made; echo more >> /etc/group; cat /proc/self/uid_map; exec sleep 1000"
    )
    orlopd.orlop("run", "-d", "--snapshotter", snapshotter, *IDS, "--name", "one", busybox,
                 "sh", "-c", script)  # fmt: skip
    orlopd.wait_for(lambda: "65536" in orlopd.orlop("logs", "one").stdout)
    assert orlopd.orlop("logs", "one").stdout.split() == [
        "0", "0", "0", "1000", "1000", "0", "0", "5", "6", "0", "200000", "65536",
    ]  # fmt: skip
    made = next((orlopd.root / "snapshots" / snapshotter).glob("snapshots/*/**/made")).stat()
    assert (made.st_uid, made.st_gid) == (200_005, 200_006)
    assert orlopd.orlop("exec", "-u", "sailor", "one", "id", "-u").stdout == "1000\n"
    for _ in range(2):  # the second comes from the same copy
        assert orlopd.orlop("run", "--rm", "--snapshotter", snapshotter, *IDS, busybox, "stat",
                            "-c", "%u", "/bin/busybox").stdout == "0\n"  # fmt: skip
    plain = orlopd.orlop("run", "--rm", "--snapshotter", snapshotter, busybox, "stat", "-c", "%u",
                         "/bin/busybox")  # fmt: skip
    assert plain.stdout == "0\n"
    orlopd.orlop("kill", "one")
    orlopd.orlop("wait", "one")
    orlopd.orlop("start", "one")
    orlopd.orlop("rm", "-f", "one")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert not [each for each in mounts if "orlop-idmap-" in each and orlopd.folder.name in each]


def test_what_excludes_each_other(orlopd: Orlopd, busybox: str) -> None:
    for flags in ("--privileged",), ("--net", "host"), ("--pid", "host"):
        refused = orlopd.orlop("run", *IDS, *flags, busybox, check=False)
        assert (refused.returncode, "--userns excludes" in refused.stderr) == (125, True)
    few = orlopd.orlop("run", "--snapshotter", "native", "--userns", "200000:9", busybox,
                       check=False)  # fmt: skip
    assert "files of id 1000, which is not mapped" in few.stderr
    assert orlopd.ctr("containers", "ls", "-q").stdout == ""


def test_labels_of_snapshots(orlopd: Orlopd, busybox: str) -> None:
    """As clients of this API ask for it."""
    with orlopd.connect() as plain, leases.held(plain) as connection:
        listed = connection.snapshots.list(
            snapshots_pb2.ListSnapshotsRequest(snapshotter="overlayfs")
        )
        parent = next(info.name for answer in listed for info in answer.info)

        def prepare(
            key: str, labels: dict[str, str], snapshotter: str = "overlayfs", below: str = parent
        ) -> list[str]:
            request = snapshots_pb2.PrepareSnapshotRequest(
                snapshotter=snapshotter, key=key, labels=labels, parent=below
            )
            (mount,) = connection.snapshots.prepare(request).mounts
            return list(mount.options)

        assert not [each for each in prepare("plain", {}) if "map=" in each]
        options = prepare("mapped", MAPPED)
        assert options[-2:] == ["uidmap=0:200000:65536", "gidmap=0:200000:65536"]
        again = connection.snapshots.mounts(
            snapshots_pb2.MountsRequest(snapshotter="overlayfs", key="mapped")
        )
        assert list(again.mounts[0].options) == options
        upper = next(each for each in options if each.startswith("upperdir="))
        assert Path(upper.removeprefix("upperdir=")).stat().st_uid == 200_000
        with pytest.raises(InvalidArgument, match="mapping of ids"):
            prepare("bad", {**MAPPED, "containerd.io/snapshot/uidmapping": "0-1"})
        prepare("work", {}, "native", "")
        connection.snapshots.commit(
            snapshots_pb2.CommitSnapshotRequest(snapshotter="native", key="work", name="base")
        )
        with pytest.raises(FailedPrecondition, match=r"cannot map ids .* slow_chown"):
            prepare("native", MAPPED, "native", "base")
        for key, snapshotter in ("plain", "overlayfs"), ("mapped", "overlayfs"), ("base", "native"):
            connection.snapshots.remove(
                snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
            )


def test_a_bind_mount_with_mapped_ids(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in source, target:
        folder.mkdir()
    (source / "file").touch()
    kind = subprocess.run(["stat", "-fc", "%T", str(source)], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip
    options = ("bind", "ro", "uidmap=0:70000:10", "gidmap=0:80000:10")
    mount_all([Mount("bind", str(source), options=options)], target)
    try:
        info = (target / "file").stat()
        assert (info.st_uid, info.st_gid) == (70_000, 80_000), kind
        with pytest.raises(OSError, match="Read-only"):
            (target / "other").touch()
    finally:
        unmount(target)
