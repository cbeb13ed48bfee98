from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.field_mask_pb2 import FieldMask
from msgspec.structs import replace

from orlop.containers import Container, ContainerStore, rows
from orlop.containers.service import ContainersService
from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.metadata.references import ensure_namespace
from orlop.rpc import CallContext, ServiceTable
from orlop.wire.events_pb2 import ContainerCreate, ContainerUpdate
from orlop.wire.services import containers_pb2 as wire

# Neither our key order nor our white space: the bytes must come back as they are.
SPEC = Any(
    type_url="types.containerd.io/opencontainers/runtime-spec/1/Spec",
    value=b'{"z": 1,  "ociVersion":"1.0.2", "unknown": [1, 2.50]}',
)
OPTIONS = Any(type_url="containerd.runc.v1.Options", value=b"\x08\x01")


def extension(text: str) -> Any:
    return Any(type_url=f"example/{text}", value=text.encode())


FULL = Container(
    id="c1",
    runtime="io.containerd.runc.v2",
    spec=SPEC,
    image="docker.io/library/busybox:latest",
    runtime_options=OPTIONS,
    snapshotter="overlayfs",
    snapshot_key="c1-snapshot",
    sandbox="pod",
    labels={"a.b/c": "1", "d": "2"},
    extensions={"x.y": extension("one"), "z": extension("two")},
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(tmp_path / "meta.db")
    yield db
    db.close()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def store(db: Database, exchange: Exchange) -> ContainerStore:
    return ContainerStore(db, exchange)


def test_create_get_and_delete(store: ContainerStore, exchange: Exchange) -> None:
    with exchange.subscribe() as events:
        made = store.create("default", FULL)
        assert made == replace(FULL, created_at=made.created_at, updated_at=made.created_at)
        assert made.created_at > 0
        assert store.get("default", "c1") == made
        assert store.list("default") == [made]
        with pytest.raises(AlreadyExists):
            store.create("default", FULL)
        with pytest.raises(NotFound):
            store.get("other", "c1")
        store.delete("default", "c1")
        with pytest.raises(NotFound):
            store.delete("default", "c1")
        created, deleted = next(events), next(events)
        assert not events._buffer
    assert (created.topic, deleted.topic) == ("/containers/create", "/containers/delete")
    event = ContainerCreate.FromString(created.event.value)
    assert (event.id, event.image) == ("c1", FULL.image)
    assert (event.runtime.name, event.runtime.options) == (FULL.runtime, OPTIONS)


def test_nothing_of_a_deleted_container_comes_back(store: ContainerStore) -> None:
    store.create("default", FULL)
    store.delete("default", "c1")
    again = store.create("default", Container(id="c1", runtime="r", spec=SPEC))
    assert store.get("default", "c1") == again
    assert again.labels == again.extensions == {}
    assert again.runtime_options is None


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "a/b"},
        {"id": "x" * 77},
        {"runtime": ""},
        {"spec": None},
        {"snapshotter": ""},
        {"labels": {"k": "v" * 5000}},
        {"extensions": {"": extension("x")}},
    ],
)
def test_bad_containers_are_refused(
    store: ContainerStore, exchange: Exchange, change: dict[str, object]
) -> None:
    with exchange.subscribe() as events:
        with pytest.raises(InvalidArgument):
            store.create("default", replace(FULL, **change))
        assert not events._buffer
    assert store.list("default") == []


def test_update_whole(store: ContainerStore, exchange: Exchange) -> None:
    made = store.create("default", FULL)
    new = replace(
        FULL,
        image="other",
        spec=extension("spec"),
        snapshot_key="k2",
        labels={"e": "3"},
        extensions={"x.y": extension("three"), "w": extension("four")},
        runtime_options=None,
        sandbox="ignored",
    )
    with exchange.subscribe() as events:
        updated = store.update("default", new)
        event = ContainerUpdate.FromString(next(events).event.value)
    assert updated == replace(
        made,
        image="other",
        spec=extension("spec"),
        snapshot_key="k2",
        labels={"e": "3"},
        extensions={"x.y": extension("three"), "w": extension("four"), "z": extension("two")},
        updated_at=updated.updated_at,
    )
    assert updated.updated_at > made.updated_at
    assert store.get("default", "c1") == updated
    assert event == ContainerUpdate(id="c1", image="other", labels={"e": "3"}, snapshot_key="k2")


NEW = replace(
    FULL,
    image="new",
    spec=extension("new"),
    snapshot_key="new",
    labels={"a.b/c": "9", "f": "3"},
    extensions={"x.y": extension("nine")},
    runtime="never",
    snapshotter="never",
)


@pytest.mark.parametrize(
    ("paths", "change"),
    [
        (["image"], {"image": "new"}),
        (["spec"], {"spec": extension("new")}),
        (["snapshot_key"], {"snapshot_key": "new"}),
        (["snapshotkey"], {"snapshot_key": "new"}),
        (["labels"], {"labels": {"a.b/c": "9", "f": "3"}}),
        (["labels.a.b/c"], {"labels": {"a.b/c": "9", "d": "2"}}),
        (["labels.d", "image"], {"labels": {"a.b/c": "1"}, "image": "new"}),
        (["extensions"], {"extensions": {"x.y": extension("nine"), "z": extension("two")}}),
        (["extensions.x.y"], {"extensions": {"x.y": extension("nine"), "z": extension("two")}}),
        (["extensions.z"], {"extensions": {"x.y": extension("one")}}),
    ],
)
def test_update_by_mask(store: ContainerStore, paths: list[str], change: dict[str, object]) -> None:
    made = store.create("default", FULL)
    updated = store.update("default", NEW, FieldMask(paths=paths))
    expected = replace(made, updated_at=updated.updated_at, **change)
    assert updated == expected
    assert store.get("default", "c1") == expected


@pytest.mark.parametrize(
    "path", ["runtime", "runtime.name", "snapshotter", "sandbox", "id", "created_at", "", "tea"]
)
def test_immutable_and_unknown_paths_are_refused(store: ContainerStore, path: str) -> None:
    made = store.create("default", FULL)
    with pytest.raises(InvalidArgument):
        store.update("default", NEW, FieldMask(paths=["image", path]))
    assert store.get("default", "c1") == made


def test_bad_updates_change_nothing(store: ContainerStore, exchange: Exchange) -> None:
    made = store.create("default", FULL)
    with exchange.subscribe() as events:
        for change in ({"runtime": "x"}, {"snapshotter": "x"}, {"spec": None}):
            with pytest.raises(InvalidArgument):
                store.update("default", replace(FULL, **change))
        with pytest.raises(NotFound):
            store.update("default", replace(FULL, id="other"))
        assert not events._buffer
    assert store.get("default", "c1") == made


def test_filters(store: ContainerStore) -> None:
    store.create("default", FULL)
    store.create("default", Container(id="c2", runtime="other.v1", spec=SPEC, image="img"))

    def ids(*filters: str) -> list[str]:
        return [container.id for container in store.list("default", filters)]

    assert ids() == ["c1", "c2"]
    assert ids("id==c1") == ["c1"]
    assert ids("runtime.name==other.v1") == ["c2"]
    assert ids("image~=/busybox/", "image==img") == ["c1", "c2"]
    assert ids('labels."a.b/c"==1,id~=^c') == ["c1"]
    assert ids("labels.d!=2") == ["c2"]
    assert ids("snapshotter") == []


def test_service_returns_the_clients_bytes(store: ContainerStore) -> None:
    service, ctx = ContainersService(store), CallContext(namespace="default")
    ServiceTable(service)
    sent = wire.Container(
        id="c1",
        image="img",
        labels={"k": "v"},
        runtime=wire.Container.Runtime(name="r", options=OPTIONS),
        spec=SPEC,
        snapshotter="overlayfs",
        snapshot_key="key",
        sandbox="pod",
        extensions={"x.y": extension("one")},
    )
    made = service.create(wire.CreateContainerRequest(container=sent), ctx).container
    sent.created_at.CopyFrom(made.created_at)
    sent.updated_at.CopyFrom(made.updated_at)
    assert made == sent
    assert service.get(wire.GetContainerRequest(id="c1"), ctx).container == sent
    assert listed(service, ctx) == [sent]
    assert streamed(service, ctx, "id==c1") == [sent]
    sent.labels["k"] = ""
    update = wire.UpdateContainerRequest(container=sent, update_mask={"paths": ["labels.k"]})
    assert not service.update(update, ctx).container.labels
    service.delete(wire.DeleteContainerRequest(id="c1"), ctx)
    assert not listed(service, ctx)


def listed(service: ContainersService, ctx: CallContext, *filters: str) -> list[wire.Container]:
    answer = service.list(wire.ListContainersRequest(filters=filters), ctx)
    return list(wire.ListContainersResponse.FromString(answer.SerializeToString()).containers)


def streamed(service: ContainersService, ctx: CallContext, *filters: str) -> list[wire.Container]:
    answers = service.list_stream(wire.ListContainersRequest(filters=filters), ctx)
    data = (each.SerializeToString() for each in answers)
    return [wire.ListContainerMessage.FromString(each).container for each in data]


def test_a_list_of_all_is_the_list_of_those_that_match(store: ContainerStore) -> None:
    service, ctx = ContainersService(store), CallContext(namespace="default")
    large = Any(type_url="types.example/läßt", value=bytes(range(256)) * 100)
    for container in (
        FULL,
        Container(id="bare", runtime="r", spec=Any()),
        Container(
            id="more", runtime="r", spec=large, runtime_options=Any(), image="ü" * 2000,
            labels={"k": "v" * 3000, "ö": "ß"}, extensions={"a": large, "b": Any(), "ö": SPEC},
        ),
    ):  # fmt: skip
        store.create("default", container)
        store.create("other", container)
    everything = listed(service, ctx, "")
    assert [each.id for each in everything] == ["bare", FULL.id, "more"]
    assert listed(service, ctx) == everything
    assert streamed(service, ctx) == everything
    assert not listed(service, CallContext(namespace="empty"))


def test_a_runtime_without_options_stays_without(store: ContainerStore) -> None:
    service, ctx = ContainersService(store), CallContext(namespace="default")
    sent = wire.Container(id="c", runtime=wire.Container.Runtime(name="r"), spec=SPEC)
    made = service.create(wire.CreateContainerRequest(container=sent), ctx).container
    assert not made.runtime.HasField("options")
    without = wire.Container(id="d", runtime=wire.Container.Runtime(name="r"))
    with pytest.raises(InvalidArgument, match="no spec"):
        service.create(wire.CreateContainerRequest(container=without), ctx)


def test_a_list_of_ten_thousand_is_a_few_queries(store: ContainerStore, db: Database) -> None:
    many = 10_000
    with db.write() as tx:
        ensure_namespace(tx, "default")
        for number in range(many):
            rows.write(tx, "default", replace(FULL, id=f"c{number:05}"))
    service, ctx = ContainersService(store), CallContext(namespace="default")
    began = time.thread_time()
    assert len(listed(service, ctx, "labels.d==2")) == len(listed(service, ctx)) == many
    # Loose, for a busy machine: it takes about a tenth of this.
    assert time.thread_time() - began < 5
