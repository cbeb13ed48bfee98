"""A start after a death: is all there that was promised, whole, and nothing besides?"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from orlop.oci.digest import Digest
from orlop.upkeep.inspection import Inspection
from tests.storm.work import NAMESPACES, Rooms, written

Promises = dict[tuple[str, ...], tuple[Any, ...]]


def judge(root: Path, ledger: Path) -> None:
    """Raises AssertionError; what is left is sound, and free of garbage."""
    promises = read(ledger)
    with ExitStack() as closing:
        rooms = Rooms(root, closing)
        _have(rooms, promises)
    _agree(root)
    with ExitStack() as closing:
        rooms = Rooms(root, closing)
        for namespace in NAMESPACES:
            for lease in rooms.leases.list(namespace):
                rooms.leases.delete(namespace, lease.id)
        rooms.collector.run()
        _have(rooms, promises)
        _only(rooms)
    _agree(root)


def read(ledger: Path) -> Promises:
    """What was promised and not taken back, by kind and name."""
    found: Promises = {}
    for line in ledger.read_text().splitlines():
        match json.loads(line):
            case ["drop", *key]:
                found.pop(tuple(key), None)
            case ["image", namespace, name, *digests]:
                found["image", namespace, name] = tuple(digests)
            case ["write", namespace, ref, size]:
                found["write", namespace, ref] = (size,)
            case ["snapshot", snapshotter, namespace, name, parent]:
                found["snapshot", snapshotter, namespace, name] = (parent,)
    return found


def _have(rooms: Rooms, promises: Promises) -> None:
    for key, facts in promises.items():
        match key:
            case ("image", namespace, name):
                assert rooms.images.get(namespace, name).target.digest == facts[0]
                for digest in facts:
                    assert Digest.of(rooms.content.read(namespace, digest)) == digest
            case ("write", namespace, ref):
                assert rooms.content.status(namespace, ref).offset >= facts[0]
                with rooms.content.writer(namespace, ref, total=100_000) as writer:
                    assert writer.read(100_000, 0) == written(ref)[: writer.offset]
            case ("snapshot", snapshotter, namespace, name):
                store = rooms.snapshotters[snapshotter]
                assert store.stat(namespace, name).parent == facts[0]
                assert (store.folder(namespace, name) / "file").read_text() == name


def _only(rooms: Rooms) -> None:
    """After a collection, blobs are those of images."""
    kept: defaultdict[str, set[str]] = defaultdict(set)
    for namespace in NAMESPACES:
        for image in rooms.images.list(namespace):
            manifest = json.loads(rooms.content.read(namespace, image.target.digest))
            kept[namespace] |= {image.target.digest, manifest["layer"]} - {""}
        assert {info.digest for info in rooms.content.list(namespace)} == kept[namespace]


def _agree(root: Path) -> None:
    """Files and records are the same; the daemon has ended, so nothing is on its way."""
    found: list[Any] = []
    Inspection(root, found.append, lambda done, total: None).run()
    assert not found, found
    with ExitStack() as closing:
        rooms = Rooms(root, closing)
        with rooms.database.read() as tx:
            rows = {
                (row[0], str(row[1])) for row in tx.all("SELECT snapshotter, id FROM snapshots")
            }
            ingests = {row[0] for row in tx.all("SELECT directory FROM ingests")}
    folders = {
        (path.parent.parent.name, path.name) for path in root.glob("snapshots/*/snapshots/*")
    }
    assert folders == rows
    assert {path.name for path in root.glob("content/ingest/*")} <= ingests
    assert not list(root.glob("content/trash/*"))
