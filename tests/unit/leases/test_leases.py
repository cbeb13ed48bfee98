from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented
from orlop.leases import Lease, LeaseStore, Resource
from orlop.leases.service import LeasesService
from orlop.metadata import Database
from orlop.metadata.references import attach_to_lease
from orlop.rpc import CallContext, ServiceTable
from orlop.wire.services import leases_pb2 as wire

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(tmp_path / "meta.db")
    yield db
    db.close()


@pytest.fixture
def store(db: Database) -> LeaseStore:
    return LeaseStore(db)


def test_create_list_and_delete(store: LeaseStore) -> None:
    made = store.create("default", "a long id: of any text", {"k": "v", "none": ""})
    store.create("other", "elsewhere")
    assert made.created_at > 0
    assert store.list("default") == [Lease("a long id: of any text", {"k": "v"}, made.created_at)]
    with pytest.raises(AlreadyExists):
        store.create("default", made.id)
    store.delete("default", made.id)
    assert store.list("default") == []
    with pytest.raises(NotFound):
        store.delete("default", made.id)
    assert store.create("default", made.id).labels == {}


def test_ids_are_invented(store: LeaseStore) -> None:
    ids = {store.create("default").id for _ in range(20)}
    assert len(ids) == 20
    assert all(invented.split("-", 1)[0].isdigit() for invented in ids)


def test_filters(store: LeaseStore) -> None:
    store.create("default", "a", {"moby/x.y": "1"})
    store.create("default", "b")
    assert [lease.id for lease in store.list("default", ["id==b"])] == ["b"]
    assert [lease.id for lease in store.list("default", ['labels."moby/x.y"'])] == ["a"]
    with pytest.raises(InvalidArgument):
        store.list("default", ["id=="])


def test_resources(store: LeaseStore) -> None:
    store.create("default", "l")
    kept = (
        Resource("content", DIGEST),
        Resource("images", "docker.io/library/busybox:latest"),
        Resource("ingests", "layer-sha256:1"),
        Resource("snapshots/overlayfs", "extract-1 key"),
    )
    for resource in reversed(kept):
        store.add_resource("default", "l", resource)
        store.add_resource("default", "l", resource)
    assert store.resources("default", "l") == kept
    store.delete_resource("default", "l", kept[1])
    store.delete_resource("default", "l", kept[1])
    assert store.resources("default", "l") == (kept[0], *kept[2:])
    store.delete("default", "l")
    store.create("default", "l")
    assert store.resources("default", "l") == ()


@pytest.mark.parametrize(
    ("resource", "error"),
    [
        (Resource("tea", "x"), Unimplemented),
        (Resource("", "x"), Unimplemented),
        (Resource("content/x", DIGEST), InvalidArgument),
        (Resource("content", "not-a-digest"), InvalidArgument),
        (Resource("snapshots", "x"), InvalidArgument),
        (Resource("snapshots/", "x"), InvalidArgument),
        (Resource("snapshots/a/b", "x"), InvalidArgument),
    ],
)
def test_bad_resources_are_refused(
    store: LeaseStore, resource: Resource, error: type[Exception]
) -> None:
    store.create("default", "l")
    for change in (store.add_resource, store.delete_resource):
        with pytest.raises(error):
            change("default", "l", resource)
    assert store.resources("default", "l") == ()


def test_unknown_leases_are_not_found(store: LeaseStore, db: Database) -> None:
    for unknown in ("", "nobody"):
        for call in (store.add_resource, store.delete_resource):
            with pytest.raises(NotFound):
                call("default", unknown, Resource("images", "x"))
        with pytest.raises(NotFound):
            store.resources("default", unknown)
    with pytest.raises(NotFound), db.write() as tx:
        attach_to_lease(tx, "default", "nobody", "images", "x")


def test_service(store: LeaseStore) -> None:
    collected: list[CallContext] = []
    service, ctx = LeasesService(store, collected.append), CallContext(namespace="default")
    ServiceTable(service)
    lease = service.create(wire.CreateRequest(labels={"k": "v"}), ctx).lease
    assert lease.id
    assert lease.created_at.seconds > 1_600_000_000
    assert list(service.list(wire.ListRequest(filters=["labels.k==v"]), ctx).leases) == [lease]
    resource = wire.Resource(type="images", id="x")
    service.add_resource(wire.AddResourceRequest(id=lease.id, resource=resource), ctx)
    listed = wire.ListResourcesRequest(id=lease.id)
    assert list(service.list_resources(listed, ctx).resources) == [resource]
    service.delete_resource(wire.DeleteResourceRequest(id=lease.id, resource=resource), ctx)
    assert not service.list_resources(listed, ctx).resources
    service.delete(wire.DeleteRequest(id=lease.id, sync=True), ctx)
    service.create(wire.CreateRequest(id="other"), ctx)
    service.delete(wire.DeleteRequest(id="other"), ctx)
    assert collected == [ctx]
    assert not service.list(wire.ListRequest(), ctx).leases


def test_whether_a_lease_keeps_a_resource(store: LeaseStore) -> None:
    lease = store.create("default").id
    blob = Resource("content", DIGEST)
    assert not store.keeps("default", lease, blob)
    store.add_resource("default", lease, blob)
    assert store.keeps("default", lease, blob)
    assert not store.keeps("default", lease, Resource("images", DIGEST))
    assert not store.keeps("other", lease, blob)
    store.delete("default", lease)
    assert not store.keeps("default", lease, blob)
