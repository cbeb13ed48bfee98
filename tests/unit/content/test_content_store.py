from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.content import ContentStore
from orlop.content.protection import Protection
from orlop.content.service import ContentService
from orlop.content.writer import ContentWriter, Ingest
from orlop.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Unavailable,
)
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.rpc import CallContext
from orlop.wire.services import content_pb2 as pb

DATA = b"ballast" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class World:
    """A store that can be closed and opened again."""

    def __init__(self, root: Path, *, shared: bool = True) -> None:
        self.root, self.shared = root, shared
        self.exchange = Exchange()
        self.open()

    def open(self) -> None:
        self.database = Database(self.root / "meta.db")
        self.store = ContentStore(
            self.database, self.root / "content", self.exchange, shared=self.shared
        )
        self.store.reap()
        self.service = ContentService(self.store)

    def reopen(self) -> None:
        self.database.close()
        self.open()

    def put(self, data: bytes = DATA, namespace: str = "ns", lease: str = "", **labels: str) -> str:
        with self.store.writer(namespace, f"put-{len(data)}", lease=lease) as writer:
            writer.write(data)
            return writer.commit(len(data), labels=labels)

    def lease(self, name: str) -> None:
        with self.database.write() as tx:
            tx.execute("INSERT OR IGNORE INTO namespaces VALUES ('ns')")
            tx.execute("INSERT INTO leases VALUES ('ns', ?, 1)", (name,))

    def held(self, lease: str) -> set[tuple[str, str]]:
        with self.database.read() as tx:
            rows = tx.all("SELECT type, id FROM lease_resources WHERE lease = ?", (lease,))
        return {(row["type"], row["id"]) for row in rows}

    def write(self, *requests: pb.WriteContentRequest, lease: str = "") -> list[Any]:
        context = CallContext(namespace="ns", lease=lease)
        return list(self.service.write(iter(requests), context))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close()


def test_write_read_delete(world: World) -> None:
    with world.exchange.subscribe() as events:
        assert world.put(port="lisbon") == DIGEST
        info = world.store.info("ns", DIGEST)
        assert (info.size, info.labels) == (len(DATA), {"port": "lisbon"})
        assert world.store.read("ns", DIGEST) == DATA
        assert [i.digest for i in world.store.list("ns", ["labels.port==lisbon"])] == [DIGEST]
        assert [i.digest for i in world.store.list("ns", [f"size=={len(DATA)}"])] == [DIGEST]
        assert world.store.list("ns", ["labels.port==oslo"]) == []
        with world.store.open("ns", DIGEST) as blob:
            world.store.delete("ns", DIGEST)
            assert blob.read_all() == DATA
        assert [next(iter(events)).topic for _ in range(2)] == [
            "/content/create",
            "/content/delete",
        ]
    assert not world.store.files.blob(DIGEST).exists()
    with pytest.raises(NotFound):
        world.store.info("ns", DIGEST)
    with pytest.raises(InvalidArgument):
        world.store.info("ns", "sha256:x")


def test_labels(world: World) -> None:
    world.put(a="1", b="2")
    info = world.store.update("ns", DIGEST, {"b": "", "c/d.e": "3"}, FieldMask(
        paths=["labels.b", "labels.c/d.e"]))  # fmt: skip
    assert info.labels == {"a": "1", "c/d.e": "3"}
    with pytest.raises(InvalidArgument):
        world.store.update("ns", DIGEST, {}, FieldMask(paths=["size"]))
    with pytest.raises(InvalidArgument):
        world.store.update("ns", "sha256:x", {}, FieldMask())


def test_wrong_size_and_digest_keep_the_data(world: World) -> None:
    with world.store.writer("ns", "r") as writer:
        writer.write(DATA)
        with pytest.raises(FailedPrecondition, match="bytes"):
            writer.commit(1)
    with world.store.writer("ns", "r") as writer:
        assert writer.offset == len(DATA)
        with pytest.raises(FailedPrecondition, match="was expected"):
            writer.commit(expected=f"sha256:{'0' * 64}")
    with world.store.writer("ns", "r") as writer:
        assert writer.commit(expected=DIGEST) == DIGEST
    assert world.store.statuses("ns") == []
    assert world.store.files.ingests() == set()


def test_an_ingest_survives_a_restart(world: World) -> None:
    with world.store.writer("ns", "r", total=len(DATA), expected=DIGEST) as writer:
        writer.write(DATA[:100])
    world.reopen()
    (status,) = world.store.statuses("ns")
    assert (status.ref, status.offset, status.total) == ("r", 100, len(DATA))
    with world.store.writer("ns", "r") as writer:
        assert writer.offset == 100
        writer.write(DATA[100:])
        assert writer.commit(len(DATA), DIGEST) == DIGEST
    assert world.store.read("ns", DIGEST) == DATA


def test_an_ingest_of_something_else_begins_again(world: World) -> None:
    with world.store.writer("ns", "r", total=10) as writer:
        writer.write(b"old")
    with world.store.writer("ns", "r", total=20) as writer:
        assert writer.offset == 0


def test_data_never_counts_for_what_replaced_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the daemon is killed as soon as the record is another one."""
    with world.store.writer("ns", "r", total=3) as writer:
        writer.write(b"old")

    def killed(*_: Any, **__: Any) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.store.files, "make_ingest", killed)
        with pytest.raises(KeyboardInterrupt):
            world.store.writer("ns", "r", total=len(DATA))
    world.reopen()
    status = world.store.status("ns", "r")
    assert (status.total, status.offset) == (len(DATA), 0)
    with world.store.writer("ns", "r", total=len(DATA)) as writer:
        writer.write(DATA[writer.offset :])
        assert writer.commit(len(DATA), DIGEST) == DIGEST


def test_one_writer_a_ref(world: World) -> None:
    with world.store.writer("ns", "r"):
        with pytest.raises(Unavailable, match="locked"):
            world.store.writer("ns", "r")
        world.store.writer("ns", "other").close()
        world.store.writer("other", "r").close()
    world.store.writer("ns", "r").close()


def test_other_algorithms(world: World) -> None:
    sha512 = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    with world.store.writer("ns", "a", expected=sha512) as writer:
        writer.write(DATA)
        assert writer.commit() == sha512
    sha384 = f"sha384:{hashlib.sha384(DATA).hexdigest()}"
    with world.store.writer("ns", "b") as writer:
        writer.write(DATA)
        assert writer.commit(expected=sha384) == sha384


def test_a_known_blob_is_refused_but_leased(world: World) -> None:
    world.put()
    world.lease("held")
    with pytest.raises(AlreadyExists):
        world.store.writer("ns", "r", expected=DIGEST, lease="held")
    assert world.held("held") == {("content", DIGEST)}
    world.lease("late")
    with world.store.writer("ns", "r", lease="late") as writer:
        writer.write(DATA)
        assert world.held("late") == {("ingests", "r")}
        with pytest.raises(AlreadyExists):
            writer.commit()
    assert world.held("late") == {("content", DIGEST)}
    assert world.store.files.ingests() == set()


def test_blobs_are_shared_between_namespaces(world: World) -> None:
    world.put(namespace="a")
    with world.store.writer("b", "r", expected=DIGEST) as writer:
        assert writer.offset == writer.total == len(DATA)
        assert writer.commit(len(DATA), DIGEST) == DIGEST
    world.store.delete("a", DIGEST)
    assert world.store.read("b", DIGEST) == DATA
    with pytest.raises(NotFound):
        world.store.read("a", DIGEST)


def test_the_isolated_policy_wants_the_bytes(tmp_path: Path) -> None:
    world = World(tmp_path, shared=False)
    world.put(namespace="a")
    with world.store.writer("b", "r", expected=DIGEST) as writer:
        assert writer.offset == 0
    with world.database.write() as tx:
        tx.execute(
            "INSERT INTO labels VALUES ('namespace', '', 'a', ?, 'true')",
            ("containerd.io/namespace.shareable",),
        )
    with world.store.writer("c", "r", expected=DIGEST) as writer:
        assert writer.offset == len(DATA)
    world.database.close()


def test_what_is_written_can_be_read_before_it_is_a_blob(world: World) -> None:
    world.put()
    with (
        world.store.writer("ns", "half") as half,
        world.store.writer("other", "shared", expected=DIGEST) as shared,
    ):
        half.write(DATA[:100])
        for writer, data in ((half, DATA[:100]), (shared, DATA)):
            assert writer.read(10, 0) == data[:10]
            assert writer.read(len(DATA), 90) == data[90:]
            assert writer.read(1, len(DATA)) == b""


def test_shared_bytes_outlive_their_source(world: World) -> None:
    """Deleted everywhere else before the commit, the blob is still there to be committed."""
    world.put(namespace="a")
    with world.store.writer("b", "r", expected=DIGEST) as writer:
        world.store.delete("a", DIGEST)
        assert world.store.status("b", "r").offset == len(DATA)
        writer.commit()
    assert world.store.read("b", DIGEST) == DATA


def test_writing_to_shared_bytes_leaves_the_blob_alone(world: World) -> None:
    world.put(namespace="a")
    with world.store.writer("b", "longer", expected=DIGEST) as writer:
        writer.write(b"!")
        assert writer.commit(expected=f"sha256:{hashlib.sha256(DATA + b'!').hexdigest()}")
    with world.store.writer("b", "anew", expected=DIGEST) as writer:
        writer.seek(0)
        writer.write(b"x")
    with world.store.writer("b", "anew") as writer:
        writer.write(b"y")
        assert world.store.read("b", writer.commit()) == b"xy"
    assert world.store.read("a", DIGEST) == DATA


def test_an_aborted_write_cannot_be_committed(world: World) -> None:
    with world.store.writer("ns", "r") as writer:
        writer.write(DATA)
        world.store.abort("ns", "r")
        with pytest.raises(Aborted):
            writer.commit()
        with pytest.raises(FailedPrecondition, match="closed"):
            writer.write(b"late")
    assert world.store.list("ns") == []
    assert world.store.files.sizes() == {}


@pytest.mark.parametrize("committed", [True, False])
def test_what_is_aborted_while_it_begins_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    make = world.store.files.make_ingest
    aborting = threading.Thread(target=world.store.abort, args=("ns", "r"))

    def slowly(name: str) -> Path:
        aborting.start()
        aborting.join(0.5)  # it waits, unless it is too early
        return make(name)

    monkeypatch.setattr(world.store.files, "make_ingest", slowly)
    with contextlib.suppress(Aborted), world.store.writer("ns", "r") as writer:
        writer.write(DATA)
        aborting.join()
        if committed:
            writer.commit()
    aborting.join()
    assert not world.store.statuses("ns")
    assert not world.store.list("ns")
    assert world.store.files.ingests() == set()


def test_a_write_that_has_no_record_leaves_no_data(world: World) -> None:
    with world.store.writer("ns", "r") as writer:
        writer.write(DATA)
        with world.database.write() as tx:
            tx.execute("DELETE FROM ingests")
        with pytest.raises(Aborted):
            writer.commit()
    assert world.store.files.ingests() == set()
    assert world.store.files.sizes() == {}


def test_what_is_aborted_before_it_is_open_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(store: ContentStore, ingest: Ingest) -> ContentWriter:
        store.abort("ns", "r")
        return ContentWriter(store, ingest)

    with monkeypatch.context() as patch:
        patch.setattr("orlop.content.store.ContentWriter", late)
        with pytest.raises(Aborted):
            world.store.writer("ns", "r")
    world.put(namespace="other")
    with world.store.writer("ns", "r", expected=DIGEST) as writer:
        world.store.abort("ns", "r")
        with pytest.raises(Aborted):
            writer.write(b"more")
    assert world.store.files.ingests() == set()


def test_a_commit_that_fails_changes_nothing(world: World) -> None:
    world.lease("held")
    with world.store.writer("ns", "r", lease="held") as writer:
        writer.write(DATA)
        with world.database.write() as tx:
            tx.execute("DELETE FROM leases")
        with pytest.raises(NotFound, match="held"):
            writer.commit()
    assert world.store.files.sizes() == {}
    with world.store.writer("ns", "r") as writer:
        assert writer.commit(len(DATA), DIGEST) == DIGEST


def test_a_name_that_is_not_on_disk_is_no_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> None:
        raise OSError(errno.EIO, "broken", str(folder))

    with world.store.writer("ns", "first") as writer:
        writer.write(DATA)
        with monkeypatch.context() as patch:
            patch.setattr("orlop.content.files.sync_folder", broken)
            with pytest.raises(OSError, match="broken"):
                writer.commit()
    assert world.store.files.sizes() == {}


def _littered(world: World, way: str) -> None:
    """A file with the name of a blob that no record knows, and that is not one."""
    orphan = world.store.files.blob(DIGEST)
    if way == "an open ingest":
        with world.store.writer("ns", "open") as writer:
            writer.write(b"another")
            (data,) = world.root.glob("content/ingest/*/data")
            orphan.hardlink_to(data)
    else:
        orphan.write_bytes(b"spoiled")


@pytest.mark.parametrize("way", ["an open ingest", "a damaged file"])
def test_a_commit_trusts_no_file_without_a_record(world: World, way: str) -> None:
    _littered(world, way)
    assert world.put() == DIGEST
    assert world.store.read("ns", DIGEST) == DATA
    assert world.put(DATA, "other") == DIGEST  # that one is kept
    assert world.store.files.blob(DIGEST).stat().st_nlink == 1
    assert not list(world.store.files.trash.iterdir())


def test_nor_does_one_of_the_same_data(world: World) -> None:
    with world.store.writer("ns", "r") as writer:
        writer.write(DATA)
        (data,) = world.root.glob("content/ingest/*/data")
        world.store.files.blob(DIGEST).hardlink_to(data)
        assert writer.commit() == DIGEST
    assert world.store.read("ns", DIGEST) == DATA
    assert not list(world.store.files.trash.iterdir())


@pytest.mark.parametrize("way", ["an open ingest", "a damaged file"])
def test_nor_does_what_is_taken_over(world: World, way: str) -> None:
    _littered(world, way)
    with pytest.raises(NotFound):
        world.store.take("ns", DIGEST, None, {}, "")
    data = world.store.files.scratch()
    data.write_bytes(DATA)
    assert world.store.take("ns", DIGEST, data, {}, "")
    assert world.store.read("ns", DIGEST) == DATA
    assert world.store.take("other", DIGEST, None, {}, "")


def test_every_lease_of_a_write_gets_the_blob(world: World) -> None:
    world.lease("first")
    world.lease("second")
    world.store.writer("ns", "r", lease="first").close()
    with world.store.writer("ns", "r", lease="second") as writer:
        writer.write(DATA)
        writer.commit()
    assert world.held("first") == world.held("second") == {("content", DIGEST)}


def test_ingests_expire_unless_leased(world: World) -> None:
    world.lease("held")
    for ref, lease in (("idle", ""), ("leased", "held")):
        with world.store.writer("ns", ref, lease=lease) as writer:
            writer.write(DATA)
    with world.database.write() as tx:
        tx.execute("UPDATE ingests SET expires_at = 1")
    world.store.writer("ns", "fresh").close()
    world.reopen()
    assert [status.ref for status in world.store.statuses("ns")] == ["fresh", "leased"]
    assert len(world.store.files.ingests()) == 2


def test_orphans_are_reaped(world: World) -> None:
    world.put()
    orphan = world.store.files.blob(f"sha256:{'1' * 64}")
    orphan.write_bytes(b"no row")
    world.store.files.ingest("f" * 64).mkdir()
    lost = world.put(b"lost")
    world.store.files.blob(lost).unlink()
    cut = world.store.files.blob(world.put(b"cut off"))
    cut.write_bytes(b"cut")
    world.reopen()
    assert not cut.exists()
    assert not orphan.exists()
    assert world.store.files.ingests() == set()
    assert [info.digest for info in world.store.list("ns")] == [DIGEST]


def test_racing_commits_lose_nothing(world: World) -> None:
    outcomes: list[str] = []

    def write(name: str) -> None:
        with world.store.writer("ns", name) as writer:
            writer.write(DATA)
            try:
                writer.commit()
                outcomes.append("committed")
            except AlreadyExists:
                outcomes.append("exists")

    threads = [threading.Thread(target=write, args=(f"r{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["committed"] + ["exists"] * 7
    assert world.store.read("ns", DIGEST) == DATA


def _request(action: Any, **fields: Any) -> pb.WriteContentRequest:
    return pb.WriteContentRequest(action=action, **fields)


def test_write_stream(world: World) -> None:
    half = len(DATA) // 2
    replies = world.write(
        _request(pb.STAT, ref="r", total=len(DATA), expected=DIGEST),
        _request(pb.WRITE, data=DATA[:half]),
        _request(pb.WRITE, data=DATA[half:], offset=half),
        _request(pb.COMMIT, offset=len(DATA), total=len(DATA), expected=DIGEST, labels={"a": "1"}),
    )
    assert [r.offset for r in replies] == [0, half, len(DATA), len(DATA), len(DATA)]
    assert replies[-1] == replies[-2]  # the last answer comes twice
    assert replies[-1].digest == DIGEST
    assert all(r.started_at.seconds and r.total == len(DATA) for r in replies)
    assert world.store.info("ns", DIGEST).labels == {"a": "1"}
    with pytest.raises(AlreadyExists):
        world.write(_request(pb.STAT, ref="again", expected=DIGEST))


def test_write_stream_offsets(world: World) -> None:
    with pytest.raises(InvalidArgument, match="ref"):
        world.write(_request(pb.STAT))
    with pytest.raises(InvalidArgument, match="ref"):
        world.write()
    with pytest.raises(OutOfRange):
        world.write(_request(pb.WRITE, ref="r", data=b"x", offset=7))
    assert world.write(_request(pb.WRITE, ref="r", data=b"first"))[0].offset == 5
    assert world.write(_request(pb.STAT, ref="r"))[0].offset == 5
    assert world.write(_request(pb.WRITE, ref="r", data=b"anew"))[0].offset == 4
    assert world.store.status("ns", "r").offset == 4
    world.store.abort("ns", "r")
    with pytest.raises(NotFound):
        world.store.status("ns", "r")


def test_offset_zero_always_begins_again(world: World) -> None:
    replies = world.write(_request(pb.WRITE, ref="r", data=b"old"), _request(pb.WRITE))
    assert [r.offset for r in replies] == [3, 0, 0]
    world.write(_request(pb.WRITE, ref="r", data=b"old"))
    empty = world.write(_request(pb.COMMIT, ref="r"))[-1]
    assert (empty.offset, empty.digest) == (0, f"sha256:{hashlib.sha256().hexdigest()}")
    assert world.store.read("ns", empty.digest) == b""


def test_what_is_said_once_holds_for_the_stream(world: World) -> None:
    wrong_total = _request(pb.STAT, ref="a", total=10)
    data, commit = _request(pb.WRITE, data=DATA), _request(pb.COMMIT, offset=len(DATA))
    with pytest.raises(FailedPrecondition, match="7000 bytes, 10 "):
        world.write(wrong_total, data, commit)
    wrong_digest = _request(pb.WRITE, ref="b", data=DATA, expected=f"sha256:{'0' * 64}")
    with pytest.raises(FailedPrecondition, match="was expected"):
        world.write(wrong_digest, commit)
    # and for no other stream
    assert world.write(_request(pb.STAT, ref="b"), commit)[-1].digest == DIGEST


def test_a_blob_that_appears_meanwhile_ends_the_write(world: World) -> None:
    world.lease("held")

    def requests() -> Iterator[pb.WriteContentRequest]:
        yield _request(pb.WRITE, ref="r", data=DATA[:10])
        world.put()
        yield _request(pb.COMMIT, offset=10, expected=DIGEST)

    with pytest.raises(AlreadyExists):
        list(world.service.write(requests(), CallContext(namespace="ns", lease="held")))
    assert world.store.statuses("ns") == []
    assert ("content", DIGEST) in world.held("held")


def test_read_ranges(world: World) -> None:
    data = os.urandom((2 << 20) + 5)
    digest = world.put(data)
    context = CallContext(namespace="ns")

    def read(**fields: int) -> bytes:
        replies = world.service.read(pb.ReadContentRequest(digest=digest, **fields), context)
        return b"".join(reply.data for reply in replies)

    assert read() == data
    assert read(offset=5, size=10) == data[5:15]
    assert read(offset=len(data)) == b""
    assert read(offset=-3, size=3) == data[:3]
    with pytest.raises(OutOfRange):
        read(offset=len(data) + 1)


def test_a_cut_blob_is_set_aside_at_start(world: World) -> None:
    """Its record goes, so that it can be written again; its bytes stay for who wants them."""
    digest = world.put(b"whole")
    path = world.store.files.blob(digest)
    path.chmod(0o600)
    path.write_bytes(b"cut")
    world.reopen()
    assert not world.store.exists("ns", digest)
    assert not path.exists()
    (aside,) = world.store.files.damaged.iterdir()
    assert aside.read_bytes() == b"cut"
    assert world.put(b"whole") == digest


def test_a_list_of_all_is_the_list_of_those_that_match(world: World) -> None:
    for number in range(300):
        world.put(b"x" * number, size=str(number), **{"ö" * (number % 50 + 1): "ß" * number})
    world.put(b"plain")

    def listed(*filters: str) -> list[pb.Info]:
        request = pb.ListContentRequest(filters=filters)
        answers = world.service.list(request, CallContext(namespace="ns"))
        read = (pb.ListContentResponse.FromString(each.SerializeToString()) for each in answers)
        return [info for answer in read for info in answer.info]

    everything = listed("")
    assert [info.digest for info in everything] == [i.digest for i in world.store.list("ns")]
    assert len(everything) == 301
    assert listed() == everything


def test_a_blob_is_protected_before_it_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is killed in between leaves none that is not; the data can be gone on with."""
    told: list[tuple[bool, int]] = []

    class Watching(Protection):
        def apply(self, path: Path) -> None:
            with path.open("rb") as file:
                others = [
                    link for link in Path("/proc/self/fd").iterdir()
                    if link.name != str(file.fileno()) and link.resolve() == path
                ]  # fmt: skip
            told.append((bool(others), path.stat().st_mode & 0o777))

    monkeypatch.setattr(world.store, "_protection", Watching())
    with monkeypatch.context() as patch:

        def killed(*_: Any) -> bool:
            assert told == [(False, 0o400)]
            raise KeyboardInterrupt

        patch.setattr(world.store, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            world.put()
    assert not world.store.files.blob(DIGEST).exists()
    with world.store.writer("ns", f"put-{len(DATA)}") as writer:
        assert writer.offset == len(DATA)
        writer.write(b"more")
        assert world.store.read("ns", writer.commit()) == DATA + b"more"
    assert told == [(False, 0o400)] * 2


def test_a_ref_is_nobodys_while_it_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data of who comes next is not taken for that of the write that was aborted."""
    first = world.store.writer("ns", "r")
    first.write(b"old")
    begun, go_on = threading.Event(), threading.Event()
    drop = world.store.files.drop_ingest

    def slowly(name: str) -> None:
        begun.set()
        assert go_on.wait(30)
        drop(name)

    monkeypatch.setattr(world.store.files, "drop_ingest", slowly)
    aborting = threading.Thread(target=world.store.abort, args=("ns", "r"))
    aborting.start()
    assert begun.wait(30)
    first.close()
    with pytest.raises(Unavailable, match='"r" locked'):
        world.store.writer("ns", "r")
    go_on.set()
    aborting.join()
    monkeypatch.undo()
    with world.store.writer("ns", "r") as second:
        assert second.offset == 0
        second.write(DATA)
        assert second.commit() == DIGEST


def test_want_of_descriptors_makes_no_damaged_blob(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put()

    def scarce(*_: Any) -> None:
        raise OSError(errno.EMFILE, "too many")

    with monkeypatch.context() as patch:
        patch.setattr("orlop.content.files.hash_file", scarce)
        with pytest.raises(OSError, match="too many"):
            world.store.give_up(DIGEST)
    assert world.store.read("ns", DIGEST) == DATA
    with pytest.raises(AlreadyExists):
        world.store.give_up(DIGEST)


def test_a_blob_is_protected_once_nobody_has_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A child has a copy of every descriptor until it has become another program."""
    busy, protected = [errno.ETXTBSY] * 3, []

    def protect(path: Path) -> None:
        if busy:
            raise OSError(busy.pop(), "busy")
        protected.append(path)

    monkeypatch.setattr("orlop.content.protection.verity.protect", protect)
    Protection(wanted=True).apply(tmp_path)
    assert protected == [tmp_path]
    assert not caplog.records
