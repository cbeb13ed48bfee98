"""What is kept and what goes, on stores as a daemon has them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.containers import Container, ContainerStore
from orlop.content import ContentStore
from orlop.errors import FailedPrecondition
from orlop.events import Exchange
from orlop.gc import Collector, Graph, Node
from orlop.images import Image, ImageStore
from orlop.leases import LeaseStore, Resource
from orlop.metadata import Database
from orlop.metadata.sweeping import Dead, Key
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.snapshots import NativeDriver, SnapshotIds, SnapshotStore
from tests import old_database

NS = "default"
REF = "containerd.io/gc.ref.content"
PAST, FUTURE = "2001-01-01T00:00:00Z", "2100-01-01T00:00:00+02:00"


class World:
    """The stores, and short ways to fill them."""

    def __init__(self, root: Path) -> None:
        self.database = Database(root / "metadata.db")
        exchange = Exchange()
        self.content = ContentStore(self.database, root / "content", exchange)
        self.images = ImageStore(self.database, exchange)
        self.leases = LeaseStore(self.database)
        self.containers = ContainerStore(self.database, exchange)
        self.snapshots = SnapshotStore(
            self.database, SnapshotIds(self.database), "native", NativeDriver(root / "s"), exchange
        )
        self.now = 1_700_000_000.0
        sweeps = {
            "content": self.content.collect,
            "ingest": self.content.collect_ingests,
            "image": self.images.collect,
            "lease": self.leases.collect,
            "snapshot/native": self.snapshots.collect,
        }
        self.collector = Collector(self.database, sweeps, lambda: self.now)

    def close(self) -> None:
        self.snapshots.close()
        self.database.close()

    def blob(
        self, text: str, labels: Mapping[str, str] | None = None, lease: str = "", ns: str = NS
    ) -> str:
        digest = str(Digest.of(text.encode()))
        with self.content.writer(ns, text, lease=lease) as writer:
            writer.write(text.encode())
            writer.commit(labels=labels or {})
        return digest

    def label(self, digest: str, key: str, value: str) -> None:
        self.content.update(NS, digest, {key: value}, FieldMask(paths=[f"labels.{key}"]))

    def image(self, name: str, digest: str, labels: Mapping[str, str] | None = None) -> None:
        target = Descriptor(media_type="application/x", digest=digest, size=1)
        self.images.put(NS, Image(name, target, dict(labels or {})))

    def snapshot(self, name: str, parent: str = "", labels: Mapping[str, str] | None = None) -> str:
        self.snapshots.prepare(NS, f"{name}-active", parent)
        self.snapshots.commit(NS, name, f"{name}-active", labels)
        return name

    def container(self, name: str, key: str = "", labels: Mapping[str, str] | None = None) -> None:
        wanted = Container(
            id=name,
            runtime="r",
            spec=Any(),
            snapshotter="native",
            snapshot_key=key,
            labels=dict(labels or {}),
        )
        self.containers.create(NS, wanted)

    @property
    def blobs(self) -> set[str]:
        return {info.digest for info in self.content.list(NS)}

    @property
    def keys(self) -> set[str]:
        return {info.name for info in self.snapshots.list(NS)}

    def collect(self) -> Mapping[str, int]:
        removed = self.collector.run().removed
        assert self.collector.waiting() == (0, 0)
        return {kind: count for kind, count in removed.items() if count}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_an_image_keeps_what_it_leads_to(world: World) -> None:
    layers = [world.blob(f"layer {n}") for n in range(3)]
    chain = world.snapshot("top", world.snapshot("base"))
    config = world.blob("config", {"containerd.io/gc.ref.snapshot.native": chain})
    refs = {f"{REF}.l.{n}": layer for n, layer in enumerate(layers)}
    manifest = world.blob("manifest", {**refs, f"{REF}.config": config})
    world.image("a", manifest)
    world.blob("nobody's")
    world.snapshot("of nobody", "base")
    assert world.collect() == {"content": 1, "snapshot/native": 1}
    assert world.blobs == {manifest, config, *layers}
    assert world.keys == {"base", "top"}
    world.image("b", manifest)
    world.images.delete(NS, "a")
    assert world.collect() == {}
    world.images.delete(NS, "b")
    assert world.collect() == {"content": 5, "snapshot/native": 2}
    assert not any(path.is_file() for path in (world.content.files.root / "blobs").rglob("*"))
    assert not any((world.content.files.root / "trash").iterdir())


def test_layers_that_images_share_stay(world: World) -> None:
    base, own = world.blob("base"), world.blob("own")
    for name, layers in (("one", [base, own]), ("two", [base])):
        refs = {f"{REF}.l.{n}": layer for n, layer in enumerate(layers)}
        world.image(name, world.blob(name, refs))
    world.collect()
    world.images.delete(NS, "one")
    assert world.collect() == {"content": 2}
    assert base in world.blobs


def test_an_image_that_moves_lets_go(world: World) -> None:
    old, new = world.blob("old"), world.blob("new")
    world.image("a", old)
    world.image("a", new)
    world.collect()
    assert world.blobs == {new}


def test_leases(world: World) -> None:
    world.leases.create(NS, "l")
    leaf = world.blob("leaf")
    held = world.blob("held", {REF: leaf}, lease="l")
    assert world.collect() == {}
    world.leases.delete_resource(NS, "l", Resource("content", held))
    assert world.collect() == {"content": 2}
    again = world.blob("held", lease="l")
    world.leases.delete(NS, "l")
    assert world.collect() == {"content": 1}
    assert again not in world.blobs


def test_a_flat_lease_keeps_no_more_than_it_lists(world: World) -> None:
    world.leases.create(NS, "flat", {"containerd.io/gc.flat": "x"})
    leaf = world.blob("leaf")
    listed = world.blob("listed", {f"{REF}.x": leaf}, lease="flat")
    target = world.blob("target", {f"{REF}.x": world.blob("under it")})
    world.image("expired", target, {"containerd.io/gc.expire": PAST})
    world.leases.add_resource(NS, "flat", Resource("images", "expired"))
    world.snapshot("base", labels={f"{REF}.y": world.blob("of the base")})
    world.snapshot("top", "base")
    world.leases.add_resource(NS, "flat", Resource("snapshots/native", "top"))
    world.collect()
    assert world.blobs == {listed, target}
    assert world.keys == {"base", "top"}
    assert [image.name for image in world.images.list(NS)] == ["expired"]
    world.leases.create(NS, "deep")  # the same, in full
    leaf = world.blob("leaf", lease="deep")
    world.leases.add_resource(NS, "deep", Resource("content", listed))
    world.leases.delete_resource(NS, "deep", Resource("content", leaf))
    world.collect()
    assert leaf in world.blobs


def test_what_only_a_flat_lease_keeps_from_now_on(world: World) -> None:
    leaf = world.blob("leaf")
    top = world.blob("top", {REF: leaf})
    world.leases.create(NS, "flat", {"containerd.io/gc.flat": "x"})
    world.leases.add_resource(NS, "flat", Resource("content", top))
    world.image("a", top)
    assert world.collect() == {}
    world.images.delete(NS, "a")
    assert world.collect() == {"content": 1}
    assert world.blobs == {top}


def test_dead_parents_that_are_shared_are_searched_once(world: World) -> None:
    layers = [world.blob(f"layer {n}") for n in range(40)]
    refs = {f"{REF}.l.{n}": layer for n, layer in enumerate(layers)}
    for number in range(40):
        world.blob(f"manifest {number}", refs)
    asked: list[Node] = []

    class Watched(Graph):
        def _is_root(self, node: Node, *, full: bool) -> bool:
            asked.append(node)
            return super()._is_root(node, full=full)

    with world.database.read() as tx:
        graph = Watched(tx, world.now)
        assert not any(graph.is_kept(Node("content", NS, layer)) for layer in layers)
    assert len(asked) <= 2 * 80
    assert world.collect() == {"content": 80}


def test_what_has_ended(world: World) -> None:
    world.leases.create(NS, "past", {"containerd.io/gc.expire": PAST})
    world.leases.create(NS, "future", {"containerd.io/gc.expire": FUTURE})
    world.leases.create(NS, "odd", {"containerd.io/gc.expire": "soon"})
    for lease in ("past", "future", "odd"):
        world.blob(f"of {lease}", lease=lease)
    world.image("past", world.blob("image past"), {"containerd.io/gc.expire": PAST})
    world.image("future", world.blob("image future"), {"containerd.io/gc.expire": FUTURE})
    assert world.collect() == {"lease": 1, "image": 1, "content": 2}
    assert world.blobs == {str(Digest.of(t)) for t in (b"of future", b"of odd", b"image future")}
    end = world.collector.next_expiry()
    assert end is not None
    world.now = end + 1
    assert world.collect() == {"lease": 1, "image": 1, "content": 2}


def test_writes_that_are_not_gone_on_with(world: World) -> None:
    digest = world.blob("expected")
    world.leases.create(NS, "l")
    world.content.writer("other", "mine", expected=digest).close()
    world.content.writer("other", "leased").close()
    world.leases.create("other", "l")
    world.leases.add_resource("other", "l", Resource("ingests", "leased"))
    open_one = world.content.writer("other", "open")
    world.now += 10**9
    assert world.collect() == {"ingest": 1, "content": 1}
    assert [s.ref for s in world.content.statuses("other")] == ["leased", "open"]
    assert len(list((world.content.files.root / "ingest").iterdir())) == 2
    open_one.close()
    assert digest not in world.blobs


def test_containers_keep_their_snapshots_and_what_their_labels_name(world: World) -> None:
    world.snapshot("base")
    world.snapshots.prepare(NS, "box", "base")
    checkpoint = world.blob("checkpoint")
    world.container("box", "box", {f"{REF}.checkpoint.one": checkpoint})
    assert world.collect() == {}
    world.containers.delete(NS, "box")
    assert world.collect() == {"content": 1, "snapshot/native": 2}


def test_long_chains_go_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orlop.snapshots.shelf._ANCESTORS", 3)
    for number in range(10):
        world.snapshot(f"layer {number}", f"layer {number - 1}" if number else "")
    assert world.collect() == {"snapshot/native": 10}


def test_roots_and_back_references(world: World) -> None:
    rooted = world.blob("rooted", {"containerd.io/gc.root": "yes"})
    other = world.blob("other", {"containerd.io/gc.root.mine": "yes"})
    world.container("box")
    tied = world.blob("tied", {"containerd.io/gc.bref.container.x": "box"})
    world.snapshot("tied", labels={"containerd.io/gc.bref.content": tied})
    assert world.collect() == {}
    world.containers.delete(NS, "box")
    assert world.collect() == {"content": 1, "snapshot/native": 1}
    world.label(rooted, "containerd.io/gc.root", "")
    assert world.collect() == {"content": 1}
    assert world.blobs == {other}


def test_a_circle_keeps_nothing(world: World) -> None:
    one, two = world.blob("one"), world.blob("two")
    world.label(one, REF, two)
    world.label(two, f"{REF}/back", one)
    world.image("a", one)
    assert world.collect() == {}
    world.images.delete(NS, "a")
    assert world.collect() == {"content": 2}


def test_namespaces_do_not_keep_for_each_other(world: World) -> None:
    digest = world.blob("both")
    world.blob("both", ns="other")
    world.image("a", digest)
    assert world.collect() == {"content": 1}
    assert world.content.read(NS, digest) == b"both"
    assert not world.content.exists("other", digest)


def test_a_snapshot_of_another_snapshotter_is_another(world: World) -> None:
    world.blob("config", {"containerd.io/gc.ref.snapshot.overlayfs": "chain",
                          "containerd.io/gc.root": "x"})  # fmt: skip
    world.snapshot("chain")
    assert world.collect() == {"snapshot/native": 1}


def test_what_was_there_before_the_log_is_looked_at(tmp_path: Path) -> None:
    digest = str(Digest.of(b"old"))
    with old_database.of_version(tmp_path / "metadata.db", 3) as before:
        before.execute("INSERT INTO namespaces VALUES ('default')")
        before.execute("INSERT INTO content VALUES ('default', ?, 3, 0, 0)", (digest,))
    world = World(tmp_path)
    assert world.blobs == {digest}
    assert world.collect() == {"content": 1}
    world.close()


@pytest.mark.parametrize("seed", range(8))
def test_any_order_ends_as_a_full_mark_would(world: World, seed: int) -> None:
    """Random references made and dropped, with collections between: never one too many or few."""
    chance = random.Random(seed)
    edges: dict[str, set[str]] = {}
    roots: set[str] = set()
    for step in range(80):
        match chance.choice(("blob", "blob", "link", "unlink", "root", "unroot", "collect")):
            case "blob":
                digest = world.blob(f"{seed} {step}")
                edges[digest] = set()
            case "link" if edges:
                one, two = chance.choices(sorted(edges), k=2)
                edges[one].add(two)
                world.label(one, f"{REF}.{two[7:20]}", two)
            case "unlink" if edges:
                one = chance.choice(sorted(edges))
                if edges[one]:
                    two = chance.choice(sorted(edges[one]))
                    edges[one].discard(two)
                    world.label(one, f"{REF}.{two[7:20]}", "")
            case "root" if edges:
                root = chance.choice(sorted(edges))
                roots.add(root)
                world.image(root, root)
            case "unroot" if roots:
                root = chance.choice(sorted(roots))
                roots.discard(root)
                world.images.delete(NS, root)
            case "collect":
                world.collect()
                marked, queue = set(), list(roots)
                while queue:
                    current = queue.pop()
                    if current not in marked:
                        marked.add(current)
                        queue.extend(edges[current])
                assert world.blobs == marked
                edges = {digest: edges[digest] for digest in marked}


def test_what_cannot_be_removed_keeps_nothing_else(world: World) -> None:
    """It is tried again by the next collection, and its failure is told."""
    stays = {world.blob("stays")}
    others = {world.blob(f"goes {number}") for number in range(200)}
    collect, stuck = world.content.collect, True

    def failing(keys: Iterable[Key], dead: Dead) -> int:
        wanted = list(keys)
        if stuck and any(name in stays for _, name in wanted):
            raise FailedPrecondition("it is held")
        return collect(wanted, dead)

    world.collector._sweepers["content"] = failing  # type: ignore[index]
    with pytest.raises(FailedPrecondition, match="it is held"):
        world.collector.run()
    assert world.blobs == stays
    assert others and world.collector.waiting() == (1, 1)
    stuck = False
    world.collector.run()
    assert world.blobs == set()


def test_all_that_an_ended_image_kept_goes_at_once(world: World) -> None:
    """Also when nothing else is noted."""
    blob = world.blob("of the image")
    world.image("brief", blob, {"containerd.io/gc.expire": FUTURE})
    world.collector.run()
    assert world.blobs == {blob}
    world.now = 5_000_000_000.0
    assert world.collector.waiting() == (0, 0)
    world.collector.run()
    assert world.blobs == set()
