"""A fetch waits for another one of the same blob, and for nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from orlop.content import ContentStore
from orlop.errors import Unavailable
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.transfer.fetch import Fetcher
from orlop.transfer.labels import ref_key

_BLOB = Descriptor(
    media_type="application/octet-stream",
    digest="sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    size=3,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "meta.db")
    yield database
    database.close()


@pytest.fixture
def content(database: Database, tmp_path: Path) -> ContentStore:
    return ContentStore(database, tmp_path / "content", Exchange())


def _fetcher(content: ContentStore) -> Fetcher:
    return Fetcher(content, cast("Any", None), "ns", "", CallContext(), lambda _: None)


def test_it_takes_over_where_another_has_given_up(content: ContentStore) -> None:
    other = content.writer("ns", ref_key(_BLOB), total=3, expected=_BLOB.digest)
    other.write(b"ab")
    threading.Timer(0.2, other.close).start()
    with _fetcher(content).writer(_BLOB) as writer:
        assert writer is not None
        assert writer.offset == 2


def test_a_database_that_takes_no_more_is_told(content: ContentStore, database: Database) -> None:
    database._writer.execute("PRAGMA query_only = ON")  # as on a disk that is read-only
    with pytest.raises(Unavailable, match="cannot be used"):
        _fetcher(content).writer(_BLOB)
