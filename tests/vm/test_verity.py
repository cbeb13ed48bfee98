"""Blobs protected by fs-verity, on an ext4 that can and on one that cannot."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.content.protection import Protection
from orlop.events import Exchange
from orlop.metadata import Database
from tests.daemon_fixture import Orlopd
from tests.disks import formatted

_VERITY = "[content]\nverity = true\n"
_FS_IOC_GETFLAGS = 0x80086601
_FS_VERITY_FL = 0x00100000


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


def _is_protected(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))
    finally:
        os.close(fd)
    return bool(int.from_bytes(flags[:4], "little") & _FS_VERITY_FL)


def test_a_record_tells_of_a_protected_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is killed just before it leaves a protected write, which can be gone on with."""
    with _ext4(tmp_path, "verity") as disk:
        database = Database(disk / "metadata.db")
        protection = Protection(wanted=True)
        store = ContentStore(database, disk / "content", Exchange(), protection=protection)

        def killed(*_: object) -> bool:
            (blob,) = disk.glob("content/blobs/sha256/*")
            assert _is_protected(blob)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, store.writer("ns", "ref") as writer:
            writer.write(b"cargo")
            patch.setattr(store, "_record", killed)
            with pytest.raises(KeyboardInterrupt):
                writer.commit()
        with store.writer("ns", "ref") as writer:
            assert writer.offset == 5
            writer.write(b" and more")
            digest = writer.commit()
        assert store.read("ns", digest) == b"cargo and more"
        assert _is_protected(store.files.blob(digest))
        database.close()


def test_a_blob_cannot_be_changed(tmp_path: Path, busybox_archive: Path) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(_ext4(tmp_path, "verity"))
        daemon = stack.enter_context(_daemon(disk, tmp_path / "config.toml"))
        image = daemon.ctr("images", "import", str(busybox_archive)).stdout.split()[1]
        blobs = list(daemon.root.glob("content/blobs/*/*"))
        assert blobs and all(_is_protected(path) for path in blobs)
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
        assert not any(map(_is_protected, daemon.root.glob("content/blobs/*/*")))
        assert daemon.orlop("run", "--rm", image, "echo", "well").stdout == "well\n"
        assert daemon.log.read_text().count("this filesystem cannot") == 1
