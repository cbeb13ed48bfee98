"""A store on a disk that is full: a clear error, and nothing lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.errors import ResourceExhausted
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.sys.mount import Mount, mount_all, unmount

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount_all([Mount("tmpfs", "tmpfs", options=("size=1m", "nr_inodes=1k"))], path)
    yield path
    unmount(path)


def put(store: ContentStore, ref: str, data: bytes) -> str:
    with store.writer("ns", ref) as writer:
        writer.write(data)
        return writer.commit()


def test_full_disk(disk: Path, tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    store = ContentStore(database, disk / "content", Exchange())
    kept = put(store, "small", b"kept")
    data = os.urandom(4 << 20)
    with store.writer("ns", "large") as writer:
        with pytest.raises(ResourceExhausted, match=r"no space left .* remove images"):
            writer.write(data)
        there = store.status("ns", "large").offset
        assert 0 < there == writer.offset < 1 << 20
        # What is there is sound: it can be taken back to a beginning that fits.
        writer.seek(0)
        writer.write(data[: there // 2])
        cut = writer.commit()
    assert store.read("ns", cut) == data[: there // 2]
    assert store.read("ns", kept) == b"kept"
    database.close()


def test_full_disk_under_the_database(disk: Path) -> None:
    """The records have no room either: blobs that were promised stay, no half ones appear."""
    database = Database(disk / "meta.db")
    store = ContentStore(database, disk / "content", Exchange())
    data = {}
    with pytest.raises(ResourceExhausted, match="no space left"):
        for number in range(1000):
            blob = os.urandom(20_000)
            data[put(store, f"r{number}", blob)] = blob
    assert len(data) > 5
    for digest, blob in data.items():
        assert store.read("ns", digest) == blob
    assert store.files.sizes().keys() == data.keys()
    database.close()
    database = Database(disk / "meta.db")
    store = ContentStore(database, disk / "content", Exchange())
    store.reap()
    assert {info.digest for info in store.list("ns")} == data.keys()
    database.close()


def test_full_disk_for_the_blob_of_another_namespace(disk: Path, tmp_path: Path) -> None:
    """There is room for the folder of the write, but for no link in it."""
    database = Database(tmp_path / "meta.db")
    store = ContentStore(database, disk / "content", Exchange())
    digest = put(store, "r", b"kept")
    number = 0
    while os.statvfs(disk).f_ffree > 1:
        number += 1
        (disk / str(number)).touch()
    with pytest.raises(ResourceExhausted, match="no space left"):
        store.writer("other", "r", expected=digest)
    (disk / "1").unlink()
    with store.writer("other", "r", expected=digest) as writer:
        assert writer.commit() == digest
    database.close()
