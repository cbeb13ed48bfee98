"""Many threads on one store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest

from orlop.content import ContentStore
from orlop.errors import AlreadyExists, NotFound, Unavailable
from orlop.events import Exchange
from orlop.metadata import Database

BLOBS = {
    f"sha256:{hashlib.sha256(data).hexdigest()}": data
    for data in (bytes([n]) * (n * 9001) for n in range(1, 4))
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    database = Database(tmp_path / "meta.db")
    yield ContentStore(database, tmp_path / "content", Exchange())
    database.close()


def run_all(jobs: Sequence[Callable[[], None]]) -> None:
    """Run jobs in threads; raises what any of them raised."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_writes_deletes_and_reads_at_once(store: ContentStore) -> None:
    """Two namespaces share, drop and rewrite the same blobs; none is ever seen broken."""

    def write(seed: int) -> None:
        random = Random(seed)
        for _ in range(40):
            namespace, digest = random.choice("ab"), random.choice(list(BLOBS))
            expected = digest if random.random() < 0.5 else ""
            try:
                with store.writer(namespace, f"{digest}-{seed}", expected=expected) as writer:
                    writer.write(BLOBS[digest][writer.offset :])
                    writer.commit(len(BLOBS[digest]), digest)
            except AlreadyExists:
                pass

    def delete_and_read(seed: int) -> None:
        random = Random(seed)
        for _ in range(120):
            namespace, digest = random.choice("ab"), random.choice(list(BLOBS))
            try:
                if random.random() < 0.3:
                    store.delete(namespace, digest)
                assert store.read(namespace, digest) == BLOBS[digest]
            except NotFound:
                pass

    run_all([partial(write, seed) for seed in range(4)])
    run_all(
        [partial(write, seed) for seed in range(4)]
        + [partial(delete_and_read, seed) for seed in range(10, 13)]
    )
    listed = {info.digest for namespace in "ab" for info in store.list(namespace)}
    assert store.files.sizes().keys() == listed
    assert store.files.ingests() == set()
    assert store.statuses("a") == store.statuses("b") == []


def test_one_of_many_gets_the_ref(store: ContentStore) -> None:
    start, done = threading.Barrier(8), threading.Barrier(8)
    got: list[bool] = []

    def open_it() -> None:
        start.wait()
        try:
            writer = store.writer("ns", "r")
        except Unavailable:
            got.append(False)
            done.wait()
            return
        got.append(True)
        done.wait()
        writer.close()

    run_all([open_it] * 8)
    assert sorted(got) == [False] * 7 + [True]
