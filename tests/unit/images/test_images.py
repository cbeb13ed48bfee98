from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from msgspec.structs import replace

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.events import Exchange
from orlop.images import Image, ImageStore
from orlop.images.service import ImagesService
from orlop.leases import LeaseStore, Resource
from orlop.metadata import Database
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext, ServiceTable
from orlop.wire import types_pb2
from orlop.wire.services import images_pb2 as wire

NAME = "docker.io/library/busybox:latest"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def listed(service: ImagesService, ctx: CallContext, *filters: str) -> list[wire.Image]:
    answer = service.list(wire.ListImagesRequest(filters=filters), ctx)
    return list(wire.ListImagesResponse.FromString(answer.SerializeToString()).images)


def digest(character: str) -> str:
    return "sha256:" + character * 64


def target(character: str = "a", **annotations: str) -> Descriptor:
    return Descriptor(
        media_type=MANIFEST, digest=digest(character), size=7, annotations=annotations
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
def store(db: Database, exchange: Exchange) -> ImageStore:
    return ImageStore(db, exchange)


def test_create_get_and_delete(store: ImageStore, exchange: Exchange) -> None:
    with exchange.subscribe() as events:
        made = store.create(
            "default", Image(NAME, target(note="x", none=""), {"k": "v", "none": ""})
        )
        assert made.labels == {"k": "v"}
        assert made.target == target(note="x")
        assert made.created_at == made.updated_at > 0
        assert store.get("default", NAME) == made
        with pytest.raises(AlreadyExists):
            store.create("default", Image(NAME, target("b")))
        with pytest.raises(NotFound):
            store.get("other", NAME)
        store.delete("default", NAME)
        with pytest.raises(NotFound):
            store.delete("default", NAME)
        created, deleted = next(events), next(events)
    assert (created.topic, deleted.topic) == ("/images/create", "/images/delete")
    assert created.event.type_url == "containerd.services.images.v1.ImageCreate"
    assert wire.ImageCreate.FromString(created.event.value).labels == {"k": "v"}
    assert wire.ImageDelete.FromString(deleted.event.value).name == NAME


@pytest.mark.parametrize(
    "bad",
    [
        Image("", target()),
        Image("x", Descriptor(media_type="", digest=digest("a"), size=1)),
        Image("x", Descriptor(media_type=MANIFEST, digest="", size=1)),
        Image("x", Descriptor(media_type=MANIFEST, digest="sha256:short", size=1)),
        Image("x", Descriptor(media_type=MANIFEST, digest=digest("A"), size=1)),
        Image("x", Descriptor(media_type=MANIFEST, digest=digest("a"), size=0)),
        Image("x", target(), {"k": "v" * 5000}),
    ],
)
def test_bad_images_are_refused(store: ImageStore, exchange: Exchange, bad: Image) -> None:
    with exchange.subscribe() as events:
        with pytest.raises(InvalidArgument):
            store.create("default", bad)
        assert not events._buffer
    assert store.list("default") == []


def test_update_whole_keeps_only_the_creation_time(store: ImageStore) -> None:
    made = store.create("default", Image(NAME, target(), {"old": "1"}))
    updated = store.update("default", Image(NAME, target("b", note="x"), {"new": "2"}))
    assert updated == replace(
        made, target=target("b", note="x"), labels={"new": "2"}, updated_at=updated.updated_at
    )
    assert updated.updated_at > made.updated_at
    assert store.get("default", NAME) == updated


@pytest.mark.parametrize(
    ("paths", "labels", "new_target"),
    [
        (["labels"], {"b.c/d": "4", "e": "5"}, target("a", x="1", y="2")),
        (["labels.b.c/d"], {"a": "1", "b.c/d": "4"}, target("a", x="1", y="2")),
        (["labels.a"], {"b.c/d": "2"}, target("a", x="1", y="2")),
        (["target"], {"a": "1", "b.c/d": "2"}, target("b", x="9")),
        (["annotations"], {"a": "1", "b.c/d": "2"}, target("a", x="9")),
        (["annotations.x"], {"a": "1", "b.c/d": "2"}, target("a", x="9", y="2")),
        (["annotations.y", "labels.e"], {"a": "1", "b.c/d": "2", "e": "5"}, target("a", x="1")),
    ],
)
def test_update_by_mask(
    store: ImageStore, paths: list[str], labels: dict[str, str], new_target: Descriptor
) -> None:
    store.create("default", Image(NAME, target("a", x="1", y="2"), {"a": "1", "b.c/d": "2"}))
    new = Image(NAME, target("b", x="9"), {"b.c/d": "4", "e": "5"})
    updated = store.update("default", new, FieldMask(paths=paths))
    assert updated.labels == labels
    assert updated.target == new_target
    assert store.get("default", NAME) == updated


def test_bad_updates_change_nothing(store: ImageStore, exchange: Exchange) -> None:
    made = store.create("default", Image(NAME, target()))
    with exchange.subscribe() as events:
        for paths in (["name"], ["created_at"], ["target.digest"], ["labels", "nope"], [""]):
            with pytest.raises(InvalidArgument):
                store.update("default", Image(NAME, target("b")), FieldMask(paths=paths))
        with pytest.raises(InvalidArgument):
            store.update("default", Image(NAME, target("")))
        with pytest.raises(NotFound):
            store.update("default", Image("other", target()))
        assert not events._buffer
    assert store.list("default") == [made]


def test_put_creates_or_replaces(store: ImageStore) -> None:
    first = store.put("default", Image(NAME, target("a"), {"k": "v"}))
    second = store.put("default", Image(NAME, target("b")))
    assert store.get("default", NAME) == second
    assert second.target.digest == digest("b")
    assert not second.labels
    assert second.created_at == first.created_at
    with pytest.raises(InvalidArgument):
        store.put("default", Image("", target()))


def test_delete_only_the_expected_target(store: ImageStore) -> None:
    store.create("default", Image(NAME, target("a")))
    with pytest.raises(NotFound):
        store.delete("default", NAME, target=digest("b"))
    store.delete("default", NAME, target=digest("a"))
    assert store.list("default") == []


def test_filters(store: ImageStore) -> None:
    store.create("default", Image("a:1", target("a"), {"x.y/z": "1"}))
    store.create("default", Image("b:1", target("b", note="n")))

    def names(*filters: str) -> list[str]:
        return [image.name for image in store.list("default", filters)]

    assert names() == names("") == ["a:1", "b:1"]
    assert names("name==b:1") == ["b:1"]
    assert names(f"target.digest=={digest('a')}") == ["a:1"]
    assert names("target.mediatype~=manifest") == ["a:1", "b:1"]
    assert names('labels."x.y/z"==1') == ["a:1"]
    assert names("annotations.note") == ["b:1"]
    assert names("name==a:1,annotations.note", "name==b:1") == ["b:1"]


def test_an_image_that_expires_joins_the_lease(store: ImageStore, db: Database) -> None:
    leases = LeaseStore(db)
    leases.create("default", "l")
    store.create("default", Image("stays", target()), lease="l")
    expiring = Image("expires", target(), {"containerd.io/gc.expire": "2100-01-01T00:00:00Z"})
    store.create("default", expiring, lease="l")
    assert leases.resources("default", "l") == (Resource("images", "expires"),)
    store.delete("default", "expires", lease="l")
    assert leases.resources("default", "l") == ()
    with pytest.raises(NotFound):
        store.create("default", expiring, lease="nobody")
    assert [image.name for image in store.list("default")] == ["stays"]


def test_service(store: ImageStore) -> None:
    collected: list[CallContext] = []
    service, ctx = ImagesService(store, collected.append), CallContext(namespace="default")
    ServiceTable(service)
    sent = wire.Image(
        name=NAME,
        labels={"k": "v"},
        target=types_pb2.Descriptor(
            media_type=MANIFEST, digest=digest("a"), size=7, annotations={"n": "o"}
        ),
    )
    request = wire.CreateImageRequest(image=sent, source_date_epoch={"seconds": 86_400})
    made = service.create(request, ctx).image
    assert made.created_at.seconds == made.updated_at.seconds == 86_400
    sent.created_at.CopyFrom(made.created_at)
    sent.updated_at.CopyFrom(made.updated_at)
    assert made == sent == service.get(wire.GetImageRequest(name=NAME), ctx).image
    sent.labels["k"] = ""
    update = wire.UpdateImageRequest(image=sent, update_mask={"paths": ["labels.k"]})
    updated = service.update(update, ctx).image
    assert not updated.labels
    assert listed(service, ctx) == [updated]
    mismatch = wire.DeleteImageRequest(name=NAME, target={"digest": digest("b")})
    with pytest.raises(NotFound):
        service.delete(mismatch, ctx)
    assert not collected
    service.delete(wire.DeleteImageRequest(name=NAME, sync=True), ctx)
    assert collected == [ctx]
    with pytest.raises(FailedPrecondition):
        service.list(wire.ListImagesRequest(), CallContext())


def test_a_list_of_all_is_the_list_of_those_that_match(store: ImageStore) -> None:
    service, ctx = ImagesService(store, lambda _: None), CallContext(namespace="default")
    for number, image in enumerate(
        (
            Image("plain", target()),
            Image("höchst/wunderlich:é", target(note="ü", **{"x" * 300: "y" * 5000})),
            Image("labels", target(), {"k": "v", "long": "x" * 4000, "ö": "ß" * 100}),
            Image("n" * 3000, replace(target(), size=1 << 62)),
        )
    ):
        store.create("default", image, at=number * 10**9 + number * 1000)
        store.create("other", image)
    everything = listed(service, ctx, "")
    assert [image.name for image in everything] == [i.name for i in store.list("default")]
    assert listed(service, ctx) == everything
    assert not listed(service, CallContext(namespace="empty"))
