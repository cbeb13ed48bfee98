"""BuildKit's containerd worker: snapshots, the layers made of them, and RUN steps."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from orlop.client import Connection
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    Unimplemented,
    Unknown,
)
from orlop.oci.digest import Digest
from orlop.sys.mount import mount_all, unmount
from orlop.wire.services import diff_pb2, snapshots_pb2, tasks_pb2
from orlop.wire.types_pb2 import Descriptor, Mount
from tests import archive_fixture
from tests.compat.clients import work
from tests.compat.clients.buildkit import (
    EXPIRE,
    GZIP,
    LAYER,
    TEMPORARY,
    UNCOMPRESSED,
    ZSTD,
    base,
    change,
    expiry,
    lease,
    now,
    plugins,
)
from tests.compat.clients.peer import SNAPSHOTTER, ingests, resources, snapshots
from tests.compat.docker.engines import Containerd
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

WRITERS = 8


# Snapshots


def test_many_snapshots_on_one(peer: Connection) -> None:
    base(peer, {"shared": b"shared"})

    def step(number: int) -> None:
        name = f"step-{number}"
        with work.mounted(work.view(peer, f"{name}-below", "base")) as root:
            assert (root / "shared").read_bytes() == b"shared"
            with pytest.raises(OSError):
                (root / "shared").write_bytes(b"changed")
        change(peer, "base", name, lambda root: (root / name).write_bytes(bytes(10_000)))
        with work.mounted(work.view(peer, f"{name}-view", name)) as root:
            assert {path.name for path in root.iterdir()} == {"shared", name}
        usage = peer.snapshots.usage(snapshots_pb2.UsageRequest(snapshotter=SNAPSHOTTER, key=name))
        assert usage.size >= 10_000 and usage.inodes >= 2
        for key in (f"{name}-below", f"{name}-view"):
            work.remove(peer, key)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(step, range(WRITERS)))
    steps = {f"step-{number}" for number in range(WRITERS)}
    assert set(snapshots(peer, "parent==base,kind==committed")) == steps
    assert set(snapshots(peer, "kind==view")) == set()
    assert set(snapshots(peer, "name~=^base$", "name==step-3")) == {"base", "step-3"}
    with pytest.raises(FailedPrecondition):
        work.remove(peer, "base")
    with pytest.raises(AlreadyExists):
        work.prepare(peer, "step-1", "base")
    work.prepare(peer, "unborn", "step-1")
    with pytest.raises(AlreadyExists):
        work.commit(peer, "step-2", "unborn")
    with pytest.raises(NotFound):
        work.commit(peer, "any", "nobody's")
    with pytest.raises(NotFound):
        work.prepare(peer, "any", "nobody's")
    with pytest.raises(FailedPrecondition):
        work.commit(peer, "any", "step-1")


def test_labels_of_snapshots(peer: Connection) -> None:
    own = {"containerd.io/snapshot/own": "kept", "buildkit/description": "RUN true"}
    work.prepare(peer, "active", labels=own)
    assert dict(work.stat(peer, "active").labels) == own
    work.commit(peer, "done", "active", {"containerd.io/gc.ref.content.0": "sha256:1"})
    found = work.stat(peer, "done")
    assert found.kind == snapshots_pb2.COMMITTED and not found.parent
    assert found.labels["containerd.io/gc.ref.content.0"] == "sha256:1"
    changed = snapshots_pb2.Info(name="done", labels={"a.b/c": "d", "left.out": "no"})
    answer = peer.snapshots.update(
        snapshots_pb2.UpdateSnapshotRequest(
            snapshotter=SNAPSHOTTER, info=changed, update_mask=FieldMask(paths=["labels.a.b/c"])
        )
    )
    assert answer.info.labels["a.b/c"] == "d" and "left.out" not in answer.info.labels
    assert set(snapshots(peer, 'labels."a.b/c"==d')) == {"done"}
    with pytest.raises(NotFound):
        work.stat(peer, "active")


def test_a_deep_chain(peer: Connection) -> None:
    """As many layers as a long Dockerfile has."""
    top = base(peer, {"0": b""}, "layer-0")
    for number in range(1, 40):
        name = f"layer-{number}"
        top = change(peer, top, name, _touching(str(number)))
    with work.mounted(work.view(peer, "all", top)) as root:
        assert len(list(root.iterdir())) == 40


def _touching(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).touch()


# Layers


def compare(peer: Connection, lower: str, upper: str, **fields: Any) -> Descriptor:
    """The layer between two committed snapshots, by views of both, as BuildKit does it."""
    left = work.view(peer, f"{lower}-left", lower) if lower else []
    right = work.view(peer, f"{upper}-right", upper)
    try:
        request = diff_pb2.DiffRequest(left=left, right=right, **fields)
        made: Descriptor = peer.diff.diff(request).diff
    finally:
        work.remove(peer, f"{upper}-right")
        if lower:
            work.remove(peer, f"{lower}-left")
    return made


def edit(root: Path) -> None:
    (root / "etc/conf").write_bytes(b"two")
    (root / "new").mkdir()
    (root / "new/file").write_bytes(b"new" * 1000)
    for path in ("new/file", "new", "etc/conf", "etc", "."):
        os.utime(root / path, (1_600_000_000, 1_600_000_000))


@pytest.mark.parametrize("media_type", [LAYER, GZIP, ZSTD, ""])
def test_layers_of_steps(engine: Orlopd, peer: Connection, media_type: str) -> None:
    base(peer, {"etc/conf": b"one", "etc/same": b"same"})
    change(peer, "base", "changed", edit)
    held = lease(peer, **{TEMPORARY: now(), EXPIRE: expiry(hours=1)})
    under = peer.with_lease(held)
    wanted = {"media_type": media_type, "ref": "changed", "labels": {"a/b": "c"}}
    if media_type == ZSTD and isinstance(engine, Containerd):
        with pytest.raises(Unimplemented):  # BuildKit makes it itself then
            compare(under, "base", "changed", **wanted)
        return
    made = compare(under, "base", "changed", **wanted)
    assert made.media_type == (media_type or GZIP)
    found = work.info(peer, made.digest)
    data = work.read(peer, made.digest)
    assert (found.size, len(data)) == (made.size, made.size)
    assert found.labels["a/b"] == "c"
    if media_type == LAYER:
        plain, diff_id = data, found.labels.get(UNCOMPRESSED, made.digest)
    else:
        plain, diff_id = unpacked(data, made.media_type), found.labels[UNCOMPRESSED]
    assert diff_id == str(Digest.of(plain))
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        names = {name.rstrip("/") for name in tar.getnames()}
    assert names == {"etc", "etc/conf", "new", "new/file"}
    assert ("content", made.digest) in resources(peer, held) and not ingests(peer)
    # The same steps give the same layer, and a store that has it no reason to complain.
    again = compare(peer, "base", "changed", **{**wanted, "ref": "again"})
    assert again.digest == made.digest
    # It is what it says: on the same base it makes the same files.
    with work.mounted(applied(peer, made, "base", "copy")) as root:
        assert (root / "etc/conf").read_bytes() == b"two"
        assert (root / "new/file").read_bytes() == b"new" * 1000


def unpacked(data: bytes, media_type: str) -> bytes:
    if media_type == GZIP:
        return gzip.decompress(data)
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
        return reader.read()


def applied(peer: Connection, layer: Descriptor, parent: str, key: str) -> list[Mount]:
    mounts = work.prepare(peer, key, parent)
    answer = peer.diff.apply(diff_pb2.ApplyRequest(diff=layer, mounts=mounts)).applied
    assert answer.media_type == LAYER and answer.digest.startswith("sha256:")
    return mounts


def test_whiteouts_and_nothing_below(peer: Connection) -> None:
    base(peer, {"etc/conf": b"one", "etc/gone": b"two"})
    change(peer, "base", "changed", lambda root: (root / "etc/gone").unlink())
    layer = compare(peer, "base", "changed", media_type=LAYER)
    with tarfile.open(fileobj=io.BytesIO(work.read(peer, layer.digest))) as tar:
        assert "etc/.wh.gone" in tar.getnames() and "etc/conf" not in tar.getnames()
    with work.mounted(applied(peer, layer, "base", "copy")) as root:
        assert [path.name for path in (root / "etc").iterdir()] == ["conf"]
    whole = compare(peer, "", "changed", media_type=GZIP)
    with work.mounted(applied(peer, whole, "", "whole")) as root:
        assert [path.name for path in (root / "etc").iterdir()] == ["conf"]


def test_reproducible_layers(engine: Orlopd, peer: Connection) -> None:
    """No time in a layer is later than SOURCE_DATE_EPOCH, which containerd 1.6 does not know."""
    if isinstance(engine, Containerd):
        assert plugins(peer, "type==io.containerd.differ.v1")  # all that it can be asked
        return
    epoch = Timestamp(seconds=1_500_000_000)
    digests = set()
    for name in ("one", "two"):
        base(peer, {"gone": b"", "kept": b"kept"}, f"base-{name}")

        def remove_and_add(root: Path) -> None:
            (root / "gone").unlink()
            (root / "new").write_bytes(b"new")

        change(peer, f"base-{name}", name, remove_and_add)
        layer = compare(peer, f"base-{name}", name, media_type=GZIP, source_date_epoch=epoch)
        digests.add(layer.digest)
        time.sleep(0.01)
    assert len(digests) == 1


def test_a_layer_that_comes_late(peer: Connection) -> None:
    """Blobs are fetched when they are needed: an apply before that is NotFound, and harmless."""
    tar = archive_fixture.tar_of({"text": b"hello"})
    data = gzip.compress(tar, mtime=0)
    layer = Descriptor(media_type=GZIP, digest=str(Digest.of(data)), size=len(data))
    mounts = work.prepare(peer, "extract")
    with pytest.raises(NotFound):
        peer.diff.apply(diff_pb2.ApplyRequest(diff=layer, mounts=mounts))
    work.put(peer, data)
    answer = peer.diff.apply(diff_pb2.ApplyRequest(diff=layer, mounts=mounts)).applied
    assert (answer.digest, answer.size) == (str(Digest.of(tar)), len(tar))
    work.commit(peer, answer.digest, "extract")
    with work.mounted(work.view(peer, "view", answer.digest)) as root:
        assert (root / "text").read_bytes() == b"hello"


# RUN


def test_a_run_step(busybox: Orlopd, peer: Connection, tmp_path: Path) -> None:
    """The worker mounts the snapshot itself and hands a bind mount of it to the task."""
    (image,) = (name for name in snapshots(peer))
    (tmp_path / "hosts").write_text("192.0.2.1 build.test\n")
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    mount_all(work.host_mounts(work.prepare(peer, "step", image)), rootfs)
    try:
        document = work.spec(peer.namespace, "runstep", "sh", "-c",
                             "cat /etc/hosts; cat >/made; echo wrong >&2; exit 7")  # fmt: skip
        document["mounts"].append(
            {"destination": "/etc/hosts", "type": "bind", "source": f"{tmp_path}/hosts",
             "options": ["nosuid", "noexec", "nodev", "rbind", "ro"]}
        )  # fmt: skip
        work.create_container(peer, "runstep", document)
        bind = Mount(type="bind", source=str(rootfs), options=["rbind"])
        with work.Process(busybox, peer, "runstep", stdin=True) as step:
            step.create([bind])
            step.start()
            step.type(b"typed")
            step.close_stdin()
            assert step.wait() == 7
            assert step.delete() == 7
        assert sorted(step.output.splitlines()) == [b"192.0.2.1 build.test", b"wrong"]
        work.delete_container(peer, "runstep")
        assert (rootfs / "made").read_bytes() == b"typed"
    finally:
        unmount(rootfs)
    work.commit(peer, "stepped", "step")
    with work.mounted(work.view(peer, "seen", "stepped")) as root:
        assert (root / "made").read_bytes() == b"typed"


def test_a_step_that_is_looked_into_and_killed(busybox: Orlopd, peer: Connection) -> None:
    (image,) = (name for name in snapshots(peer))
    document = work.spec(peer.namespace, "killed", "sh", "-c", "echo ready; exec sleep 1000")
    work.create_container(peer, "killed", document)
    with work.Process(busybox, peer, "killed") as step:
        pid = step.create(work.prepare(peer, "step", image)).pid
        assert step.start() == pid
        step.says(b"ready")
        process = {**document["process"], "args": ["sh", "-c", "id -u; read x; stty size; read x"],
                   "terminal": True, "user": {"uid": 1000, "gid": 1000}}  # fmt: skip
        with work.Process(busybox, peer, "killed", "look", stdin=True, terminal=True) as look:
            look.exec(process)
            look.start()
            look.says(b"1000")
            look.resize(123, 45)
            look.type(b"\n")
            look.says(b"45 123")
            look.type(b"\n")  # only now: Debian's shim may lose what is said at the last moment
            assert look.wait() == 0
            assert look.delete() == 0
        with pytest.raises(Unknown, match="running process"):
            peer.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="killed"))
        step.kill()
        assert step.wait() == 137
        with pytest.raises(NotFound):
            step.kill()
        assert step.delete() == 137
    with pytest.raises(NotFound):
        peer.tasks.get(tasks_pb2.GetRequest(container_id="killed"))
    work.delete_container(peer, "killed")
    work.remove(peer, "step")
