"""A store on a disk that is full: a clear error, and nothing lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.errors import ResourceExhausted
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.sys.mount import Mount, mount_all, unmount

pytestmark = pytest.mark.root


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount_all([Mount("tmpfs", "tmpfs", options=("size=1m",))], disk)
    database = Database(tmp_path / "meta.db")
    try:
        store = ContentStore(database, disk / "content", Exchange())
        with store.writer("ns", "small") as writer:
            writer.write(b"kept")
            kept = writer.commit()
        with (
            store.writer("ns", "large") as writer,
            pytest.raises(ResourceExhausted, match="no space left"),
        ):
            writer.write(os.urandom(4 << 20))
        assert store.status("ns", "large").offset <= 1 << 20
        store.abort("ns", "large")
        assert store.read("ns", kept) == b"kept"
        with store.writer("ns", "after") as writer:
            writer.write(os.urandom(100_000))
            writer.commit()
    finally:
        database.close()
        unmount(disk)
