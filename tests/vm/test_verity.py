"""Blobs protected by fs-verity, on an ext4 that can and on one that cannot."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from orlop.sys import verity
from tests.daemon_fixture import Orlopd
from tests.disks import formatted

_VERITY = "[content]\nverity = true\n"


def _ext4(folder: Path, features: str) -> AbstractContextManager[Path]:
    return formatted(folder, ["mkfs.ext4", "-q", "-b", "4096", "-O", features], 256 << 20)


@contextmanager
def _daemon(root: Path, config: Path) -> Iterator[Orlopd]:
    config.write_text(_VERITY)
    daemon = Orlopd(["--config", str(config)])
    daemon.root = root / "root"
    try:
        daemon.start()
        yield daemon
        daemon.close()
    finally:
        daemon.discard()


def test_a_blob_cannot_be_changed(tmp_path: Path, busybox_archive: Path) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(_ext4(tmp_path, "verity"))
        daemon = stack.enter_context(_daemon(disk, tmp_path / "config.toml"))
        image = daemon.ctr("images", "import", str(busybox_archive)).stdout.split()[1]
        blobs = list(daemon.root.glob("content/blobs/*/*"))
        assert blobs and all(verity.is_protected(path) for path in blobs)
        for path in blobs:
            path.chmod(0o600)
            with pytest.raises(OSError) as caught:
                path.open("r+b")
            assert caught.value.errno == errno.EPERM
        assert daemon.orlop("run", "--rm", image, "echo", "well").stdout == "well\n"
        assert daemon.orlop("store", "check").stdout == ""
        assert "is protected" not in daemon.log.read_text()


def test_where_the_filesystem_cannot(tmp_path: Path, busybox_archive: Path) -> None:
    """All is as ever, and said once."""
    with ExitStack() as stack:
        disk = stack.enter_context(_ext4(tmp_path, "^verity"))
        daemon = stack.enter_context(_daemon(disk, tmp_path / "config.toml"))
        image = daemon.ctr("images", "import", str(busybox_archive)).stdout.split()[1]
        assert not any(map(verity.is_protected, daemon.root.glob("content/blobs/*/*")))
        assert daemon.orlop("run", "--rm", image, "echo", "well").stdout == "well\n"
        assert daemon.log.read_text().count("this filesystem cannot") == 1
