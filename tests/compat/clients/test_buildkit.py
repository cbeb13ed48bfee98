"""BuildKit's containerd worker: its start, and the cache with its leases, blobs and images."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2

from orlop.client import Connection
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    Unavailable,
)
from orlop.oci.digest import Digest
from orlop.wire.services import content_pb2, images_pb2, leases_pb2, namespaces_pb2
from orlop.wire.types_pb2 import Descriptor
from tests import archive_fixture
from tests.compat.clients import work
from tests.compat.clients.buildkit import (
    EXPIRE,
    FLAT,
    TEMPORARY,
    UNCOMPRESSED,
    base,
    change,
    end_lease,
    expiry,
    keep,
    lease,
    now,
    plugins,
    record,
)
from tests.compat.clients.peer import (
    HOLD,
    SNAPSHOTTER,
    Peer,
    blobs,
    collect,
    images,
    ingests,
    leases,
    resources,
    snapshots,
)
from tests.compat.docker.engines import Containerd
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

WRITERS = 8


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


def test_a_write_that_goes_on(engine: Orlopd, peer: Connection) -> None:
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
    assert status.expected == ("" if isinstance(engine, Containerd) else digest)
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
