"""Limits of what containers may write, on an ext4 and an xfs with project quotas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from orlop.sys import projects
from tests.daemon_fixture import Orlopd
from tests.disks import formatted
from tests.metrics_fixture import Scraped

_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"),
    "xfs": ("mkfs.xfs", "-q"),
}
_FULL = "sh", "-c", "dd if=/dev/zero of=/big bs=64k count=256 2>&1; sync; stat -c %b /big"


def _disk(folder: Path, kind: str, options: str = "loop,prjquota") -> AbstractContextManager[Path]:
    return formatted(folder, _MAKE[kind], 400 << 20, options)


@contextmanager
def _daemon(root: Path, *options: str) -> Iterator[Orlopd]:
    daemon = Orlopd(options)
    daemon.root = root / "root"
    try:
        daemon.start()
        yield daemon
        daemon.close()
    finally:
        daemon.discard()


def _is_full(text: str) -> bool:
    assert "No space left on device" in text or "Disk quota exceeded" in text, text
    return int(text.rsplit(maxsplit=1)[-1]) * 512 <= 4 << 20


def _folders(daemon: Orlopd, snapshotter: str) -> list[str]:
    found = (daemon.root / "snapshots" / snapshotter / "snapshots").glob("*")
    return [str(path / "fs" if (path / "fs").exists() else path) for path in found]


def _projects(daemon: Orlopd, snapshotter: str) -> set[int]:
    return set(map(projects.project_of, _folders(daemon, snapshotter))) - {0}


@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs", "native"])
@pytest.mark.parametrize("kind", _MAKE)
def test_a_container_fills_its_own_only(
    tmp_path: Path, busybox_archive: Path, kind: str, snapshotter: str
) -> None:
    by = ("--snapshotter", snapshotter)
    with ExitStack() as stack:
        disk = stack.enter_context(_disk(tmp_path, kind))
        daemon = stack.enter_context(_daemon(disk))
        image = daemon.orlop("load", "-q", "-i", str(busybox_archive)).stdout.split()[-1]
        daemon.orlop("run", "-d", *by, "--name", "free", image, "sleep", "1000")
        small = ("--storage-opt", "size=4m", "--storage-opt", "inodes=40")
        full = daemon.orlop("run", *by, "--name", "full", *small, image, *_FULL, check=False)
        assert _is_full(full.stdout)
        assert "256+0 records out" in daemon.orlop("exec", "free", *_FULL).stdout
        # Another one, whose inodes end, and in which files of the image and new ones are moved.
        moves = (
            "mv /etc/passwd /home/ && mkdir /new && mv /home/passwd /new/ && ln /new/passwd /x && "
            "mv /new /home/newer && echo moved; for i in $(seq 60); do touch /home/f$i || exit 3; "
            "done"
        )
        many = daemon.orlop(
            "run", *by, "--name", "many", *small, image, "sh", "-c", moves, check=False
        )
        assert (many.returncode, many.stdout) == (3, "moved\n"), many.stderr
        apart = _projects(daemon, snapshotter)
        assert len(apart) == 2
        assert all(projects.quota(str(daemon.root), each).size_limit for each in apart)
        daemon.restart()
        daemon.orlop("start", "full")
        daemon.orlop("wait", "full")
        assert _projects(daemon, snapshotter) == apart
        third = daemon.orlop("run", *by, "--name", "third", *small, image, *_FULL, check=False)
        assert _is_full(third.stdout)
        assert len(_projects(daemon, snapshotter)) == 3
        before = _projects(daemon, snapshotter)
        (mine,), yours = before - apart, min(apart)
        for folder in _folders(daemon, snapshotter):
            if projects.project_of(folder) == mine:
                projects.give(folder, yours)  # as a container can that is root of the host
        daemon.orlop("rm", "third")
        daemon.wait_for(lambda: not any(projects.quota(str(daemon.root), mine)))
        assert projects.quota(str(daemon.root), yours).size_limit
        daemon.orlop("rm", "-f", "free", "full", "many")
        daemon.wait_for(
            lambda: not any(any(projects.quota(str(daemon.root), each)) for each in before)
        )


def test_the_default_is_for_containers(tmp_path: Path, busybox_archive: Path) -> None:
    """And not for layers, however they are unpacked; within a root that is in a project itself."""
    config = tmp_path / "config.toml"
    config.write_text("[snapshots]\nquota_size = 262144\n")
    with ExitStack() as stack:
        disk = stack.enter_context(_disk(tmp_path, "ext4"))
        projects.give(str(disk), 7)
        daemon = stack.enter_context(_daemon(disk, "--config", str(config)))
        image = daemon.ctr("images", "import", str(busybox_archive)).stdout.split()[1]
        full = daemon.orlop("run", "--rm", image, *_FULL, check=False)
        assert int(full.stdout.split()[-1]) * 512 <= 256 << 10, full.stdout
        larger = daemon.orlop("run", "--rm", "--storage-opt", "size=64m", image, *_FULL)
        assert "256+0 records out" in larger.stdout
        label = "containerd.io/snapshot/quota.size=32m"
        by_ctr = daemon.ctr("run", "--rm", "--snapshotter-label", label, image, "one", *_FULL)
        assert "256+0 records out" in by_ctr.stdout
        daemon.orlop("run", "--rm", "--snapshotter", "native", image, "true")
        daemon.wait_for(lambda: not list(daemon.root.glob("snapshots/*/snapshots/.trash-*")))
        assert "stays on disk" not in daemon.log.read_text()
        assert projects.quota(str(disk), 7).inodes
        daemon.orlop("rmi", image)


def test_metrics_tell_of_the_limit(tmp_path: Path, busybox_archive: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[metrics]\naddress = "127.0.0.1:0"\nfilesystem_age = 1\n')
    with ExitStack() as stack:
        disk = stack.enter_context(_disk(tmp_path, "ext4"))
        daemon = stack.enter_context(_daemon(disk, "--config", str(config)))
        image = daemon.orlop("load", "-q", "-i", str(busybox_archive)).stdout.split()[-1]
        daemon.orlop("run", "-d", "--name", "free", image, "sleep", "1000")
        small = ("--storage-opt", "size=4m")
        daemon.orlop("run", "-d", "--name", "small", *small, image, "sleep", "1000")
        served = Scraped(daemon)
        daemon.wait_for(lambda: len(served.scrape().all("container_fs_usage_bytes")) == 2, 60)
        (limit,) = served.scrape().all("container_fs_limit_bytes")
        assert 4 << 20 <= limit < 5 << 20  # what the empty folders take is no part of it
        daemon.orlop("rm", "-f", "free", "small")


@pytest.mark.parametrize("kind", _MAKE)
def test_where_quotas_are_not_enforced(tmp_path: Path, busybox_archive: Path, kind: str) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(_disk(tmp_path, kind, "loop"))
        daemon = stack.enter_context(_daemon(disk))
        image = daemon.orlop("load", "-q", "-i", str(busybox_archive)).stdout.split()[-1]
        refused = daemon.orlop("run", "--storage-opt", "size=4m", image, "true", check=False)
        assert refused.returncode == 125
        assert f"is on {kind}, and it " in refused.stderr
        assert '"prjquota"' in refused.stderr
        assert daemon.orlop("ps", "-aq").stdout == ""
