"""`orlop mount` and `umount`: images in folders of this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from orlop.sys.mount import mount, unmount, unmount_all
from tests.daemon_fixture import Orlopd, serving

pytestmark = pytest.mark.root


def _snapshots(orlopd: Orlopd, snapshotter: str) -> str:
    return orlopd.ctr("snapshots", "--snapshotter", snapshotter, "ls").stdout


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native", "erofs"])
def test_there_and_away(orlopd: Orlopd, busybox: str, tmp_path: Path, snapshotter: str) -> None:
    where = ("--snapshotter", snapshotter)
    ro, rw = tmp_path / "ro", tmp_path / "rw"
    ro.mkdir()
    rw.mkdir()
    assert orlopd.orlop("mount", *where, busybox, str(ro)).stdout == f"{ro}\n"
    orlopd.orlop("mount", *where, "--rw", busybox, str(rw))
    try:
        assert (ro / "bin/busybox").stat().st_size > 0
        with pytest.raises(OSError, match="Read-only"):
            (ro / "new").touch()
        (rw / "new").write_text("mine")
        rows = [line.split() for line in orlopd.orlop("mount").stdout.splitlines()[1:]]
        assert rows == [
            [str(ro), busybox, "ro", snapshotter],
            [str(rw), busybox, "rw", snapshotter],
        ]
        taken = orlopd.orlop("mount", busybox, str(ro), check=False)
        assert "orlop umount it first" in taken.stderr
        orlopd.restart()
        assert (rw / "new").read_text() == "mine"
        unmount_all(ro)  # as a start of the machine does
        assert " gone " in orlopd.orlop("mount").stdout
        mount("tmpfs", ro, "tmpfs", 0)
        mount("tmpfs", rw / "bin", "tmpfs", 0)
        assert " gone " in orlopd.orlop("mount").stdout
        refused = orlopd.orlop("umount", str(rw), check=False)
        assert f'something else is mounted on "{rw}/bin"' in refused.stderr
        assert (rw / "new").read_text() == "mine"
        orlopd.orlop("umount", str(ro))
        assert ro.is_mount()  # what others have mounted is theirs
        unmount(ro)
        unmount(rw / "bin")
    finally:
        orlopd.orlop("umount", str(rw))
    assert (list(ro.iterdir()), list(rw.iterdir())) == ([], [])
    assert orlopd.orlop("mount").stdout.count("\n") == 1
    assert "mounted-on" not in _snapshots(orlopd, snapshotter)


def test_what_cannot_be(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    def refused(*args: str) -> str:
        done = orlopd.orlop(*args, check=False)
        assert done.returncode == 1
        return done.stderr

    assert "is no folder" in refused("mount", busybox, str(tmp_path / "nowhere"))
    assert 'image "docker.io/library/none:1"' in refused("mount", "none:1", str(tmp_path))
    assert "orlop mount IMAGE DIR" in refused("mount", busybox)
    taken = tmp_path / "taken"
    taken.mkdir()
    mount("tmpfs", taken, "tmpfs", 0)
    assert "is a mount point already" in refused("mount", busybox, str(taken))
    unmount(taken)
    assert f'image on "{tmp_path}"' in refused("umount", str(tmp_path))
    assert orlopd.orlop("mount").stdout.count("\n") == 1


def test_the_daemons_own_snapshotter(registry: str, tmp_path: Path) -> None:
    """Whoever is told nothing uses the one of the configuration."""
    config = tmp_path / "config.toml"
    config.write_text('[snapshots]\ndefault = "native"\n')
    for orlopd in serving(["--config", str(config)]):
        name = f"{registry}/test/busybox:latest"
        orlopd.orlop("pull", name)
        assert orlopd.orlop("run", "--rm", name, "echo", "hi").stdout == "hi\n"
        assert _snapshots(orlopd, "native").count("sha256:") == 1
        assert "sha256:" not in _snapshots(orlopd, "overlayfs")
