from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.metadata.references import ensure_namespace
from orlop.namespaces import Namespace, NamespaceStore
from orlop.namespaces.service import NamespacesService
from orlop.rpc import CallContext, ServiceTable
from orlop.wire.events_pb2 import NamespaceUpdate
from orlop.wire.services import namespaces_pb2 as wire


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(tmp_path / "meta.db")
    yield db
    db.close()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def store(db: Database, exchange: Exchange) -> NamespaceStore:
    return NamespaceStore(db, exchange, str)


def test_create_list_and_delete_with_events(store: NamespaceStore, exchange: Exchange) -> None:
    with exchange.subscribe() as events:
        store.create(Namespace("moby", {"a": "b", "empty": ""}))
        store.create(Namespace("default"))
        assert store.list() == [Namespace("default"), Namespace("moby", {"a": "b"})]
        store.delete("moby")
        assert store.list() == [Namespace("default")]
        seen = [next(events) for _ in range(3)]
    assert [(e.namespace, e.topic) for e in seen] == [
        ("moby", "/namespaces/create"),
        ("default", "/namespaces/create"),
        ("moby", "/namespaces/delete"),
    ]


def test_labels_of_an_unknown_namespace_are_empty(store: NamespaceStore) -> None:
    assert store.labels("nobody") == {}


def test_create_refuses_twice_and_bad_input(store: NamespaceStore) -> None:
    store.create(Namespace("a"))
    with pytest.raises(AlreadyExists):
        store.create(Namespace("a"))
    for bad in (Namespace(""), Namespace("a/b"), Namespace("b", {"k": "v" * 5000})):
        with pytest.raises(InvalidArgument):
            store.create(bad)
    assert [namespace.name for namespace in store.list()] == ["a"]


def test_update_by_mask_and_whole(store: NamespaceStore, exchange: Exchange) -> None:
    store.create(Namespace("a", {"one.x/y": "1", "two": "2", "three": "3"}))
    with exchange.subscribe() as events:
        mask = FieldMask(paths=["labels.one.x/y", "labels.two", "labels.nine"])
        updated = store.update(Namespace("a", {"one.x/y": "uno", "three": "tres"}), mask)
        event = NamespaceUpdate.FromString(next(events).event.value)
    assert updated.labels == {"one.x/y": "uno", "three": "3"}
    assert store.labels("a") == updated.labels == dict(event.labels)
    assert store.update(Namespace("a", {"k": "v", "gone": ""})).labels == {"k": "v"}


def test_update_creates_and_refuses_other_paths(store: NamespaceStore) -> None:
    store.update(Namespace("new", {"k": "v"}))
    assert store.labels("new") == {"k": "v"}
    for path in ("labels", "name", "labels."):
        with pytest.raises(InvalidArgument):
            store.update(Namespace("new"), FieldMask(paths=[path]))


def test_delete_tells_what_is_left(store: NamespaceStore, db: Database) -> None:
    with pytest.raises(NotFound):
        store.delete("full")
    with db.write() as tx:
        ensure_namespace(tx, "full")
        tx.execute("INSERT INTO content VALUES ('full', 'sha256:x', 1, 1, 1)")
        tx.execute(
            "INSERT INTO snapshots (snapshotter, namespace, key, kind, created_at, updated_at)"
            " VALUES ('overlayfs', 'full', 'k', 2, 1, 1)"
        )
    with pytest.raises(FailedPrecondition, match='blobs, snapshots on "overlayfs"'):
        store.delete("full")


def test_delete_takes_leases_and_ingests_along(db: Database, exchange: Exchange) -> None:
    dropped: list[str] = []
    store = NamespaceStore(db, exchange, dropped.append)
    with db.write() as tx:
        ensure_namespace(tx, "full")
        tx.execute("INSERT INTO leases VALUES ('full', 'l', 1)")
        tx.execute("INSERT INTO lease_resources VALUES ('full', 'l', 'images', 'i')")
        tx.execute("INSERT INTO labels VALUES ('lease', 'full', 'l', 'k', 'v')")
        tx.execute(
            "INSERT INTO ingests (namespace, ref, directory, started_at, updated_at)"
            " VALUES ('full', 'r', 'd', 1, 1)"
        )
    store.delete("full")
    with db.read() as tx:
        for table in ("leases", "lease_resources", "labels", "ingests", "namespaces"):
            assert tx.all(f"SELECT * FROM {table}") == []
    assert dropped == ["d"]


def test_service(store: NamespaceStore) -> None:
    service, ctx = NamespacesService(store), CallContext()
    ServiceTable(service)
    mine = wire.Namespace(name="a", labels={"k": "v"})
    assert service.create(wire.CreateNamespaceRequest(namespace=mine), ctx).namespace == mine
    assert service.get(wire.GetNamespaceRequest(name="a"), ctx).namespace == mine
    assert service.get(wire.GetNamespaceRequest(name="b"), ctx).namespace.name == "b"
    assert list(service.list(wire.ListNamespacesRequest(filter="((("), ctx).namespaces) == [mine]
    mine.labels["k"] = ""
    update = wire.UpdateNamespaceRequest(namespace=mine, update_mask={"paths": ["labels.k"]})
    assert not service.update(update, ctx).namespace.labels
    service.delete(wire.DeleteNamespaceRequest(name="a"), ctx)
    assert not service.list(wire.ListNamespacesRequest(), ctx).namespaces
