"""kill -9 of a writing process: the next one finds a whole store."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.oci.digest import Digest
from tests.integration.content import doomed_writer
from tests.integration.content.doomed_writer import PIECE, PIECES, POINTS, open_store


@pytest.fixture
def root() -> Iterator[Path]:
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="orlop-content-", dir=shm) as folder:
        yield Path(folder)


def _start(root: Path, *point: str) -> subprocess.Popen[str]:
    command = [sys.executable, doomed_writer.__file__, str(root), *point]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _check_whole(root: Path, promised: set[str]) -> None:
    """Files and records agree, blobs are what they say, and a broken write can be taken up."""
    database, store = open_store(root)
    listed = {info.digest: info.size for info in store.list("ns")}
    assert promised <= listed.keys()
    assert store.files.sizes() == listed
    for digest in listed:
        assert Digest.of(store.read("ns", digest)) == digest
    statuses = store.statuses("ns")
    assert len(store.files.ingests()) <= len(statuses) <= 1
    for status in statuses:
        _go_on(store, status.ref, status.offset)
    assert store.files.ingests() == set()
    database.close()


def _go_on(store: ContentStore, ref: str, offset: int) -> None:
    with store.writer("ns", ref, total=PIECE * PIECES) as writer:
        assert writer.offset == offset
        writer.write(bytes(PIECE * PIECES - offset))
        digest = writer.commit(PIECE * PIECES)
    assert Digest.of(store.read("ns", digest)) == digest
    store.delete("ns", digest)  # it may be the next one's, too: that of no bytes but these


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(root: Path, point: str) -> None:
    with _start(root, point) as writer:
        output, _ = writer.communicate(timeout=60)
    assert writer.returncode == -9
    first, *rest = output.split()
    gone = {first} if point.endswith(":doom") else set()
    _check_whole(root, {first, *rest} - gone)


def test_killed_at_any_moment(root: Path) -> None:
    promised: set[str] = set()
    for delay in (0.001, 0.004, 0.009, 0.017, 0.03):
        with _start(root) as writer:
            assert writer.stdout is not None
            promised.add(writer.stdout.readline().strip())
            time.sleep(delay)
            writer.kill()
            words = writer.stdout.read().split("\n")
        promised.update(words[:-1])
        _check_whole(root, promised)
        database, store = open_store(root)
        for digest in promised:
            store.delete("ns", digest)
        promised.clear()
        database.close()
