"""What is removed frees the disk, but for what is still needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import archive_fixture
from tests.daemon_fixture import BUSYBOX, Orlopd

pytestmark = pytest.mark.root


def _kept(orlopd: Orlopd) -> tuple[set[str], set[str]]:
    """Digests of blobs, and keys of snapshots."""
    blobs = orlopd.ctr("content", "ls", "-q").stdout.split()
    snapshots = orlopd.ctr("snapshots", "ls").stdout.splitlines()[1:]
    return set(blobs), {line.split()[0] for line in snapshots}


def test_an_image_leaves_nothing(orlopd: Orlopd, busybox_archive: Path) -> None:
    orlopd.orlop("load", "-i", str(busybox_archive))
    assert orlopd.orlop("run", "--rm", BUSYBOX, "echo", "hello").stdout == "hello\n"
    blobs, snapshots = _kept(orlopd)
    assert blobs and len(snapshots) == 1
    orlopd.orlop("tag", BUSYBOX, "docker.io/library/other:latest")
    orlopd.orlop("rmi", BUSYBOX)
    assert _kept(orlopd) == (blobs, snapshots)
    orlopd.orlop("rmi", "docker.io/library/other:latest")
    assert _kept(orlopd) == (set(), set())
    files = [path for path in (orlopd.root / "content/blobs").rglob("*") if path.is_file()]
    assert not files


def test_a_container_keeps_what_it_runs_from(
    orlopd: Orlopd, busybox_archive: Path, tmp_path: Path
) -> None:
    orlopd.orlop("load", "-i", str(busybox_archive))
    orlopd.orlop("run", "--name", "one", BUSYBOX, "sh", "-c", "echo again")
    orlopd.ctr("images", "rm", BUSYBOX)  # which does not wait for the collection
    before = _kept(orlopd)
    assert before[0]
    (tmp_path / "other.tar").write_bytes(archive_fixture.single_image("docker.io/library/x:1"))
    orlopd.orlop("load", "-i", str(tmp_path / "other.tar"))
    orlopd.orlop("rmi", "docker.io/library/x:1")
    assert _kept(orlopd) == (set(), before[1])
    assert orlopd.orlop("start", "-a", "one").stdout == "again\n"
    orlopd.orlop("rm", "one")
    orlopd.orlop("load", "-i", str(tmp_path / "other.tar"))
    orlopd.orlop("rmi", "docker.io/library/x:1")
    assert _kept(orlopd) == (set(), set())


def test_an_image_that_is_unpacked_late(orlopd: Orlopd, busybox_archive: Path) -> None:
    """Its layers are the image's, whoever unpacked them, also when no container is on them."""
    orlopd.ctr("images", "import", "--no-unpack", str(busybox_archive))
    assert _kept(orlopd)[1] == set()
    orlopd.orlop("run", "--rm", BUSYBOX, "true")
    _, snapshots = _kept(orlopd)
    assert len(snapshots) == 1
    orlopd.orlop("tag", BUSYBOX, "docker.io/library/other:latest")
    orlopd.orlop("rmi", "docker.io/library/other:latest")
    blobs, left = _kept(orlopd)
    # manifest, config and layer, but not the archive's own index
    assert (len(blobs), left) == (3, snapshots)
    assert orlopd.orlop("run", "--rm", BUSYBOX, "echo", "here").stdout == "here\n"
