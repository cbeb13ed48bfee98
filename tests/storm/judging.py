"""A start after a death: is all there that was promised, whole, and nothing besides?"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from orlop.content.model import Status
from orlop.oci.digest import Digest
from orlop.snapshots import Kind
from orlop.sys.mount import mount_points
from orlop.upkeep.inspection import Inspection
from tests.patience import patient, wait_for
from tests.storm.layers import LOOP, look
from tests.storm.rooms import NAMESPACES, PROXY, Rooms
from tests.storm.work import TOTALS, Ledger, written

Promises = dict[tuple[str, ...], tuple[Any, ...]]
Opening = Callable[[], AbstractContextManager[Rooms]]
_GUESTS = "guests"
_PATIENCE = patient(20)


def judge(root: Path, opening: Opening, ledger: Path, target: Path) -> None:
    """Raises AssertionError; what is left is sound, and free of garbage."""
    promises = read(ledger)
    with opening() as rooms:
        _have(rooms, promises, target)
    _agree(root, opening)
    with opening() as rooms:
        _forget_mounts(rooms, Ledger(ledger))
        for namespace in NAMESPACES:
            for lease in rooms.leases.list(namespace):
                rooms.leases.delete(namespace, lease.id)
        rooms.collector.run()
        kept = {key: facts for key, facts in promises.items() if key[0] != "mount"}
        _have(rooms, kept, target)
        _only(rooms)
        if PROXY in rooms.snapshotters:
            _await_removal(rooms)
    _agree(root, opening)
    left = list(mount_points(root))
    assert not left, left
    # Who looks at all devices keeps one a moment longer.
    wait_for(lambda: not loops_below(root.parent), 10)


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
            case ["snapshot", snapshotter, namespace, name, parent, digest]:
                found["snapshot", snapshotter, namespace, name] = (parent, digest)
            case ["mount", namespace, name, kind]:
                found["mount", namespace, name] = (kind,)
    return found


def _have(rooms: Rooms, promises: Promises, target: Path) -> None:
    for namespace in NAMESPACES:
        for status in rooms.content.statuses(namespace):
            _is_of_its_write(rooms, namespace, status)
    for key, facts in promises.items():
        match key:
            case ("image", namespace, name):
                assert rooms.images.get(namespace, name).target.digest == facts[0]
                for digest in facts:
                    assert Digest.of(rooms.content.read(namespace, digest)) == digest
            case ("write", namespace, ref):
                assert rooms.content.status(namespace, ref).offset >= facts[0]
            case ("snapshot", snapshotter, namespace, name):
                store = rooms.snapshotters[snapshotter]
                assert store.stat(namespace, name).parent == facts[0]
                assert look(store, namespace, name, target) == facts[1], key
            case ("mount", namespace, name):
                (made,) = rooms.mounts.info(namespace, name).active
                if facts[0] == "loop":
                    device = Path(made.mount_point).resolve().name
                    shown = Path("/sys/block", device, "loop/backing_file").read_text()
                    assert shown.startswith(f"{target.parent}/{LOOP}"), key
                else:
                    point = Path(made.mount_point)
                    assert list(mount_points(point)) == [point], key


def _is_of_its_write(rooms: Rooms, namespace: str, status: Status) -> None:
    """Also data that nobody was told of is that of no other write."""
    if status.total in TOTALS:
        with rooms.content.writer(namespace, status.ref, total=status.total) as writer:
            whole = written(status.ref, status.total)
            assert writer.read(status.total, 0) == whole[: writer.offset], status


def _forget_mounts(rooms: Rooms, ledger: Ledger) -> None:
    """They go with their leases."""
    for namespace in NAMESPACES:
        for active in rooms.mounts.list(namespace):
            ledger.tell("drop", "mount", namespace, active.name)


def _only(rooms: Rooms) -> None:
    """After a collection, blobs are those of images, and snapshots are committed."""
    kept: defaultdict[str, set[str]] = defaultdict(set)
    for namespace in NAMESPACES:
        for image in rooms.images.list(namespace):
            manifest = json.loads(rooms.content.read(namespace, image.target.digest))
            kept[namespace] |= {image.target.digest, manifest["layer"]} - {""}
        assert {info.digest for info in rooms.content.list(namespace)} == kept[namespace]
        assert rooms.mounts.list(namespace) == []
        for store in rooms.snapshotters.values():
            kinds = {info.kind for info in store.list(namespace)}
            assert kinds <= {Kind.COMMITTED}, (store.name, kinds)


def _await_removal(rooms: Rooms) -> None:
    """The neighbour has what is recorded here, as soon as the rest has been removed there."""
    store = rooms.snapshotters[PROXY]
    deadline = time.monotonic() + _PATIENCE
    while True:
        with rooms.database.read() as tx:
            rows = tx.all("SELECT namespace, name, snapshot FROM proxied_snapshots")
        names = {row["name"] for row in rows if row["snapshot"] is not None}
        there = {info.name for info in store._remote.list(_GUESTS)}  # type: ignore[union-attr]
        if names == there and len(names) == len(rows):
            return
        assert time.monotonic() < deadline, (names ^ there, [tuple(row) for row in rows])
        time.sleep(0.05)


def _agree(root: Path, opening: Opening) -> None:
    """Files and records are the same; the daemon has ended, so nothing is on its way."""
    found: list[Any] = []
    Inspection(root, found.append, lambda done, total: None).run()
    assert not found, found
    with opening() as rooms:
        names = list(rooms.stores)
        with rooms.database.read() as tx:
            rows = {
                (row[0], str(row[1])) for row in tx.all("SELECT snapshotter, id FROM snapshots")
            }
            ingests = {row[0] for row in tx.all("SELECT directory FROM ingests")}
            mounts = {str(row[0]) for row in tx.all("SELECT id FROM mounts")}
    folders = {
        (path.parent.parent.name, path.name) for path in root.glob("snapshots/*/snapshots/*")
    }
    assert folders == {row for row in rows if row[0] in names}
    assert {path.name for path in root.glob("mounts/*")} == mounts
    assert {path.name for path in root.glob("content/ingest/*")} <= ingests
    assert not list(root.glob("content/trash/*"))


def loops_below(folder: Path) -> list[str]:
    """The files below a folder that loop devices show."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            shown = path.read_text().strip()
        except OSError:  # another's has just gone
            continue
        if shown.startswith(f"{folder}/"):
            found.append(shown)
    return found
