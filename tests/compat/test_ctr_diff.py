"""Debian's ctr has orlopd make layers."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.sys.mount import Mount, mount_all, unmount
from orlop.wire.services import diff_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Descriptor
from tests import nasty_tree
from tests.daemon_fixture import Orlopd, serving
from tests.tree import Entry, describe

pytestmark = pytest.mark.root


@pytest.fixture
def orlopd() -> Iterator[Orlopd]:
    yield from serving()


def _top(orlopd: Orlopd, snapshotter: str = "overlayfs") -> str:
    """The committed snapshot that is nobody's parent."""
    listed = orlopd.ctr("snapshots", "--snapshotter", snapshotter, "ls").stdout.splitlines()[1:]
    committed = [line.split() for line in listed if line.split()[-1] == "Committed"]
    parents = {words[1] for words in committed if len(words) > 2}
    return next(words[0] for words in committed if words[0] not in parents)


def _mounts(orlopd: Orlopd, key: str, snapshotter: str) -> list[Mount]:
    command = ("snapshots", "--snapshotter", snapshotter, "mounts", "/target", key)
    found = []
    for line in orlopd.ctr(*command).stdout.splitlines():
        words = line.split()
        found.append(Mount(words[2], words[3], "", tuple(words[6].split(","))))
    return found


@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs", "native"])
def test_snapshots_diff(
    orlopd: Orlopd, busybox_archive: Path, tmp_path: Path, snapshotter: str
) -> None:
    """The layer of a container's changes, applied to another snapshot of the image, is the same."""
    snapshots = ("snapshots", "--snapshotter", snapshotter)
    orlopd.ctr("images", "import", "--snapshotter", snapshotter, str(busybox_archive))
    image = _top(orlopd, snapshotter)
    orlopd.ctr(*snapshots, "prepare", "base", image)
    _change(orlopd, "base", snapshotter, tmp_path / "base", nasty_tree.build)
    orlopd.ctr(*snapshots, "commit", "based", "base")
    orlopd.ctr(*snapshots, "prepare", "changed", "based")
    wanted = _change(orlopd, "changed", snapshotter, tmp_path / "changed", nasty_tree.change)
    for options in ((), ("--media-type", "application/vnd.oci.image.layer.v1.tar")):
        layer = orlopd.ctr_bytes(*snapshots, "diff", *options, "changed")
        kind = "r:" if options else "r:gz"
        with tarfile.open(fileobj=io.BytesIO(layer), mode=kind) as archive:  # type: ignore[call-overload]
            assert "gone" in {name.removeprefix(".wh.") for name in archive.getnames()}
    kept = orlopd.ctr_bytes(*snapshots, "diff", "--keep", "--label", "a=b", "based", "changed")
    assert kept
    listed = orlopd.ctr("content", "ls").stdout
    digest = next(line.split()[0] for line in listed.splitlines() if "a=b" in line)
    assert "containerd.io/uncompressed=sha256:" in listed
    orlopd.ctr(*snapshots, "prepare", "again", "based")
    apply = "application/vnd.oci.image.layer.v1.tar+gzip"
    _apply(orlopd, digest, len(kept), apply, "again", snapshotter)
    found = _change(orlopd, "again", snapshotter, tmp_path / "again", lambda _: None)
    assert found == wanted
    for key in ("changed", "again", "based"):
        orlopd.ctr(*snapshots, "rm", key)


def _change(
    orlopd: Orlopd, key: str, snapshotter: str, where: Path, action: Callable[[Path], None]
) -> dict[str, Entry]:
    """Do something to a snapshot's files; what they are then."""
    where.mkdir()
    mount_all(_mounts(orlopd, key, snapshotter), where)
    try:
        action(where)
        return describe(where)
    finally:
        unmount(where)


def _apply(
    orlopd: Orlopd, digest: str, size: int, media_type: str, key: str, snapshotter: str
) -> None:
    connection = orlopd.connect()
    try:
        request = snapshots_pb2.MountsRequest(snapshotter=snapshotter, key=key)
        mounts = connection.snapshots.mounts(request).mounts
        descriptor = Descriptor(media_type=media_type, digest=digest, size=size)
        connection.diff.apply(diff_pb2.ApplyRequest(diff=descriptor, mounts=mounts))
    finally:
        connection.close()


def test_diff_of_a_running_container(orlopd: Orlopd, busybox: str) -> None:
    """Its overlay is not mounted a second time: the container goes on seeing its own files."""
    orlopd.ctr("run", "-d", busybox, "busy", "sleep", "1000")
    inside = ("tasks", "exec", "--exec-id", "x", "busy", "sh", "-c")
    orlopd.ctr(*inside, "echo before > /before; rm /etc/passwd")
    layer = orlopd.ctr_bytes("snapshots", "diff", "busy")
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        assert {"before", "etc", "etc/.wh.passwd"} <= set(archive.getnames())
    orlopd.ctr(*inside, "echo after > /etc/group; cat /before /etc/group")
    seen = orlopd.ctr(*inside, "cat /before /etc/group; ls /etc/passwd || true").stdout
    assert seen == "before\nafter\n"
    orlopd.ctr("tasks", "rm", "-f", "busy", check=False)
    orlopd.ctr("containers", "rm", "busy")


def test_errors(orlopd: Orlopd, busybox: str) -> None:
    del busybox
    refused = orlopd.ctr("snapshots", "diff", "nobody", check=False)
    assert 'snapshot "nobody"' in refused.stderr
    image = _top(orlopd)
    refused = orlopd.ctr("snapshots", "diff", "--media-type", "text/plain", image, check=False)
    assert 'making a layer of media type "text/plain": not implemented' in refused.stderr


def test_ctr_that_is_killed_meanwhile(orlopd: Orlopd, busybox: str) -> None:
    """The worker ends with its client, and nothing is left."""
    orlopd.ctr("run", "--rm", busybox, "job", "true")
    image = _top(orlopd)
    orlopd.ctr("snapshots", "prepare", "big", image)
    upper = Path(
        next(
            o for o in _mounts(orlopd, "big", "overlayfs")[0].options if "upperdir" in o
        ).partition("=")[2]
    )
    with (upper / "big").open("wb") as file:
        file.truncate(1 << 40)
    client = subprocess.Popen(orlopd.ctr_command("snapshots", "diff", "big"))

    orlopd.wait_for(lambda: bool(_packing(orlopd)))
    client.kill()
    client.wait()
    orlopd.wait_for(lambda: not _packing(orlopd), 20)
    orlopd.wait_for(lambda: "diff-" not in orlopd.ctr("content", "active").stdout)
    orlopd.ctr("snapshots", "rm", "big")


def _packing(orlopd: Orlopd) -> list[str]:
    """Workers of this daemon that pack."""
    return [line for line in orlopd.leftovers().get("processes", []) if "orlop-pack" in line]
