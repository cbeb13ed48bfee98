"""BuildKit's containerd worker: the cache, its leases, blobs and snapshots, and RUN steps."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2

from orlop.client import Connection
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    Unavailable,
    Unimplemented,
    Unknown,
)
from orlop.oci.digest import Digest
from orlop.sys.mount import mount_all, unmount
from orlop.wire.services import (
    content_pb2,
    diff_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    snapshots_pb2,
    tasks_pb2,
)
from orlop.wire.types_pb2 import Descriptor, Mount
from tests import archive_fixture
from tests.compat.clients import work
from tests.compat.clients.peer import (
    HOLD,
    SNAPSHOTTER,
    Peer,
    blobs,
    images,
    ingests,
    leases,
    resources,
    snapshots,
)
from tests.compat.docker.engines import Containerd
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP, ZSTD = f"{LAYER}+gzip", f"{LAYER}+zstd"
UNCOMPRESSED = "containerd.io/uncompressed"
FLAT, EXPIRE = "containerd.io/gc.flat", "containerd.io/gc.expire"
TEMPORARY = "buildkit/lease.temporary"
WRITERS = 8


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def lease(peer: Connection, id: str = "", **labels: str) -> str:
    made: str = peer.leases.create(leases_pb2.CreateRequest(id=id, labels=labels)).lease.id
    return made


def record(peer: Connection, id: str) -> str:
    """The lease of a record of the cache; its snapshot is in it before it is made."""
    lease(peer, id, **{FLAT: now()})
    keep(peer, id, f"snapshots/{SNAPSHOTTER}", id)
    return id


def keep(peer: Connection, lease: str, type: str, id: str) -> None:
    resource = leases_pb2.Resource(type=type, id=id)
    peer.leases.add_resource(leases_pb2.AddResourceRequest(id=lease, resource=resource))


def end_lease(peer: Connection, id: str) -> None:
    peer.leases.delete(leases_pb2.DeleteRequest(id=id, sync=True))


def collect(peer: Connection) -> None:
    """BuildKit's way to have garbage collected: a lease, deleted again, and waited for."""
    end_lease(peer, lease(peer))


def base(peer: Connection, files: Mapping[str, bytes], name: str = "base") -> str:
    """A committed snapshot of some files, held by its record."""
    record(peer, f"{name}-new")
    with work.mounted(work.prepare(peer, f"{name}-new")) as root:
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    record(peer, name)
    work.commit(peer, name, f"{name}-new")
    end_lease(peer, f"{name}-new")
    return name


def change(peer: Connection, parent: str, name: str, edit: Callable[[Path], object]) -> str:
    """A committed snapshot: another one, edited."""
    record(peer, name)
    with work.mounted(work.prepare(peer, f"{name}-new", parent)) as root:
        edit(root)
    work.commit(peer, name, f"{name}-new")
    return name


# The start of the worker


def test_the_worker_asks_what_there_is(engine: Orlopd) -> None:
    with closing(Peer(engine.address, engine.namespace)) as peer:
        health = peer.service(health_pb2.DESCRIPTOR.services_by_name["Health"])
        answer = health.check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        _probe(peer)


def _probe(peer: Peer) -> None:
    version = peer.version.version(Empty())
    assert re.match(r"v?[12]\.\d+\.\d+", version.version) and version.revision
    first, second = (peer.introspection.server(Empty()).uuid for _ in range(2))
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first) and first == second
    runtimes = plugins(peer, "type==io.containerd.runtime.v1", "type==io.containerd.runtime.v2")
    assert {each.type for each in runtimes} >= {"io.containerd.runtime.v2"}
    platforms = [(p.os, p.architecture) for each in runtimes for p in each.platforms]
    assert platforms and set(platforms) == {("linux", "amd64")}
    (snapshotter,) = plugins(peer, "type==io.containerd.snapshotter.v1,id==overlayfs")
    assert Path(snapshotter.exports["root"]).is_dir() and not snapshotter.HasField("init_err")
    assert plugins(peer, "type==io.containerd.differ.v1,id==walking")
    assert plugins(peer, "type~=|^io.containerd.content|")
    assert not plugins(peer, "type==io.containerd.snapshotter.v1,id==nobody-s")
    # And what namespaces say of defaults, before there is one.
    found = peer.namespaces.get(namespaces_pb2.GetNamespaceRequest(name=peer.namespace))
    assert dict(found.namespace.labels) == {}


def plugins(peer: Connection, *filters: str) -> list[introspection_pb2.Plugin]:
    answer = peer.introspection.plugins(introspection_pb2.PluginsRequest(filters=filters))
    return list(answer.plugins)


# Leases


def test_leases_of_the_cache(peer: Connection) -> None:
    one = record(peer, "one")
    with pytest.raises(AlreadyExists):
        record(peer, "one")
    assert resources(peer, one) == {(f"snapshots/{SNAPSHOTTER}", "one")}
    temporary = lease(peer, **{TEMPORARY: now(), EXPIRE: expiry(hours=1)})
    assert temporary and temporary not in ("one", "")
    assert leases(peer) == {"one", temporary}
    # A worker that starts ends what an earlier one has left.
    assert leases(peer, f'labels."{TEMPORARY}"') == {temporary}
    assert leases(peer, f'labels."{FLAT}"', "id==nobody") == {"one"}
    # What is made under the temporary lease is adopted by the one of the record.
    held = peer.with_lease(temporary)
    digest = work.put(held, b"layer")
    work.prepare(held, "two")
    wanted = {("content", digest), (f"snapshots/{SNAPSHOTTER}", "two")}
    assert resources(peer, temporary) == wanted
    for kind, key in resources(peer, temporary):
        keep(peer, one, kind, key)
    end_lease(peer, temporary)
    assert resources(peer, one) == wanted | {(f"snapshots/{SNAPSHOTTER}", "one")}
    assert digest in blobs(peer) and set(snapshots(peer)) == {"two"}
    dropped = leases_pb2.Resource(type="content", id=digest)
    peer.leases.delete_resource(leases_pb2.DeleteResourceRequest(id=one, resource=dropped))
    assert ("content", digest) not in resources(peer, one)
    for call in (lambda: end_lease(peer, temporary), lambda: resources(peer, temporary),
                 lambda: keep(peer, temporary, "content", digest)):  # fmt: skip
        with pytest.raises(NotFound):
            call()
    with pytest.raises(NotFound):
        work.prepare(held, "three")
    assert "three" not in snapshots(peer)


def expiry(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat().replace("+00:00", "Z")


# Content


def test_many_writers(peer: Connection) -> None:
    """Steps that end at once write the same layer under refs of their own."""
    data = os.urandom(300_000)
    digest = str(Digest.of(data))

    def write(number: int) -> bool:
        try:
            with work.Writer(peer, f"layer-{number}", len(data)) as writer:
                for start in range(0, len(data), 100_000):
                    writer.write(data[start : start + 100_000], start)
                answer = writer.commit(len(data), digest, {UNCOMPRESSED: digest})
                assert (answer.digest, answer.offset) == (digest, len(data))
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sum(pool.map(write, range(WRITERS))) == 1
    assert blobs(peer) == {digest: {UNCOMPRESSED: digest}}
    assert work.read(peer, digest) == data and not ingests(peer)
    with pytest.raises(AlreadyExists):
        work.Writer(peer, "again", len(data), digest)


def test_a_write_that_goes_on(peer: Connection) -> None:
    data = os.urandom(200_000)
    digest, half = str(Digest.of(data)), len(data) // 2
    with work.Writer(peer, "layer-one", len(data), digest) as writer:
        assert writer.write(data[:half], 0).offset == half
        with pytest.raises(Unavailable):  # another process may not have the ref meanwhile
            work.Writer(peer, "layer-one", len(data), digest)
        work.Writer(peer, "other").__exit__()
        found = ingests(peer, 'ref~="^layer-"')
        assert set(found) == {"layer-one"} and found["layer-one"].offset == half
    status = peer.content.status(content_pb2.StatusRequest(ref="layer-one")).status
    assert (status.offset, status.total) == (half, len(data))
    with work.open_writer(peer, "layer-one", len(data), digest) as writer:
        assert writer.status.offset == half
        with pytest.raises(OutOfRange):
            writer.write(data[half:], half + 1)
    with work.open_writer(peer, "layer-one", len(data), digest) as writer:
        writer.write(data[half:], half)
        with pytest.raises(FailedPrecondition):
            writer.commit(len(data), str(Digest.of(b"another")))
    with work.open_writer(peer, "layer-one", len(data), digest) as writer:
        assert writer.status.offset == len(data)
        writer.commit(len(data), digest)
    assert work.read(peer, digest) == data
    for ref in ("layer-one", "nobody's"):
        with pytest.raises(NotFound):
            peer.content.status(content_pb2.StatusRequest(ref=ref))
        with pytest.raises(NotFound):
            peer.content.abort(content_pb2.AbortRequest(ref=ref))


def test_labels_of_blobs(peer: Connection) -> None:
    """A layer in other compressions is linked by labels whose keys hold dots, colons and all."""
    one, two = work.put(peer, b"one", {UNCOMPRESSED: "sha256:x"}), work.put(peer, b"two")
    link = f"containerd.io/gc.ref.content.blob-{two}"
    source = "containerd.io/distribution.source.registry.test:5000"
    update(peer, one, {link: two, "left.out": "no"}, f"labels.{link}")
    assert blobs(peer)[one] == {UNCOMPRESSED: "sha256:x", link: two}
    update(peer, one, {source: "a/b,c"}, f"labels.{source}")
    assert set(blobs(peer, f'labels."{source}"~="(^|,)c($|,)"')) == {one}
    assert set(blobs(peer, f'labels."{link}"=={two}')) == {one}
    assert set(blobs(peer, f"digest=={two}", f'labels."{UNCOMPRESSED}"')) == {one, two}
    update(peer, one, {}, f"labels.{link}")
    assert blobs(peer)[one] == {UNCOMPRESSED: "sha256:x", source: "a/b,c"}
    before = work.info(peer, one)
    update(peer, one, {"only": "this"}, "labels")
    after = work.info(peer, one)
    assert dict(after.labels) == {"only": "this"} and after.created_at == before.created_at
    assert after.updated_at.ToNanoseconds() > before.updated_at.ToNanoseconds()
    with pytest.raises(NotFound):
        update(peer, str(Digest.of(b"nobody's")), {}, "labels.a")


def update(peer: Connection, digest: str, labels: Mapping[str, str], *paths: str) -> None:
    changed = content_pb2.Info(digest=digest, labels=labels)
    peer.content.update(content_pb2.UpdateRequest(info=changed, update_mask=FieldMask(paths=paths)))


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


# Images


def test_an_image_is_exported(peer: Connection) -> None:
    """First it is updated, without a mask, and created if it was not there."""
    one, two = (work.put_json(peer, {"schemaVersion": 2, "mark": mark}) for mark in (1, 2))
    name = "registry.test/built:latest"
    with pytest.raises(NotFound):
        target(peer, name, one)
    wanted = images_pb2.Image(name=name, target=manifest(one), labels={"buildkit/mark": "1"})
    created = peer.images.create(images_pb2.CreateImageRequest(image=wanted)).image
    assert created.target.digest == one and created.target.annotations["a"] == "b"
    with pytest.raises(AlreadyExists):
        peer.images.create(images_pb2.CreateImageRequest(image=wanted))
    updated = target(peer, name, two)
    assert (updated.target.digest, dict(updated.labels)) == (two, {})
    assert updated.created_at == created.created_at
    assert images(peer) == {name: two}
    assert target(peer, name, one, "target").target.digest == one
    assert images(peer, f"target.digest=={one}", "name==nobody") == {name: one}


def manifest(digest: str) -> Descriptor:
    return Descriptor(
        media_type=archive_fixture.MANIFEST, digest=digest, size=28, annotations={"a": "b"}
    )


def target(peer: Connection, name: str, digest: str, *paths: str) -> images_pb2.Image:
    request = images_pb2.UpdateImageRequest(
        image=images_pb2.Image(name=name, target=manifest(digest)),
        update_mask=FieldMask(paths=paths) if paths else None,
    )
    found: images_pb2.Image = peer.images.update(request).image
    return found


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
        process = {**document["process"], "args": ["sh", "-c", "id -u; read x; stty size"],
                   "terminal": True, "user": {"uid": 1000, "gid": 1000}}  # fmt: skip
        with work.Process(busybox, peer, "killed", "look", stdin=True, terminal=True) as look:
            look.exec(process)
            look.start()
            look.says(b"1000")
            look.resize(123, 45)
            look.type(b"\n")
            look.says(b"45 123")
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


# Garbage


def test_what_is_held_stays(peer: Connection) -> None:
    """And of what nobody holds, nothing."""
    end_lease(peer, HOLD)
    peer = peer.with_lease("")
    kept = lease(peer, **{EXPIRE: expiry(hours=1)})
    held = peer.with_lease(kept)
    layer, lost = work.put(held, b"layer"), work.put(held, b"that nobody refers to")
    below = {f"containerd.io/gc.ref.snapshot.{SNAPSHOTTER}": "of-image"}
    config = work.put(held, b"config", below)
    children = {"config": config, "l.0": layer}
    top = work.put(
        held, b"manifest", {f"containerd.io/gc.ref.content.{k}": v for k, v in children.items()}
    )
    image = images_pb2.Image(name="held", target=manifest(top))
    peer.images.create(images_pb2.CreateImageRequest(image=image))
    for name, parent in (("below", ""), ("of-image", "below")):
        work.prepare(held, f"{name}-new", parent)
        work.commit(held, name, f"{name}-new")
    base(peer, {"a": b"a"})
    change(peer, "base", "changed", lambda root: (root / "b").touch())
    flat = work.put(held, b"flat", {"containerd.io/gc.ref.content.0": lost})
    keep(peer, "changed", "content", flat)
    expired = lease(peer, **{EXPIRE: expiry(hours=-1)})
    keep(peer, expired, "content", lost)
    work.prepare(held, "unheld")
    end_lease(peer, "base")
    end_lease(peer, kept)
    collect(peer)
    digests = {layer, config, top, flat}
    names = {"below", "of-image", "base", "changed"}
    assert (set(blobs(peer)), set(snapshots(peer))) == (digests, names)
    assert leases(peer) == {"changed"}
    peer.images.delete(images_pb2.DeleteImageRequest(name="held", sync=True))
    assert (set(blobs(peer)), set(snapshots(peer))) == ({flat}, {"base", "changed"})
    end_lease(peer, "changed")
    assert not blobs(peer) and not snapshots(peer)
