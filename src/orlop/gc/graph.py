"""Who keeps whom, asked backwards: is there a way from a record to one that is kept?

A record is kept for its own sake (a container, an image, a lease that has not ended, a network that
was not made for a lease, the label `containerd.io/gc.root`), or because another one that is kept
refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orlop.gc.expiry import EXPIRE, has_passed
from orlop.metadata import Transaction, labels
from orlop.metadata.references import LEASED

_ROOT = "containerd.io/gc.root"
_FLAT = "containerd.io/gc.flat"
_REF = "containerd.io/gc.ref."
_BREF = "containerd.io/gc.bref."
_SNAPSHOT = "snapshot/"
# Records that stay until somebody deletes them.
_LASTING = {
    "container": "SELECT 1 FROM containers WHERE namespace = ? AND id = ?",
    "sandbox": "SELECT 1 FROM sandboxes WHERE namespace = ? AND id = ?",
}
_RESOURCES = {
    "content": "content",
    "image": "images",
    "ingest": "ingests",
    "network": "networks",
    "netns": "netns",
    "mount": "mounts",
}


class Node(NamedTuple):
    """A record: `kind` as in the table of labels, or "ingest"."""

    kind: str
    namespace: str
    name: str


class Graph:
    """The records as one transaction sees them; `now` is in Unix seconds."""

    def __init__(self, tx: Transaction, now: float) -> None:
        self.tx = tx
        self._now = now
        self._dead: set[tuple[Node, bool]] = set()  # searched in vain: deletions change no more

    def nodes(self, namespace: str, name: str) -> Iterator[Node]:
        """The collectible records that have a name, or live as long as one that had it."""
        key = (namespace, name)
        if self.tx.one("SELECT 1 FROM content WHERE namespace = ? AND digest = ?", key):
            yield Node("content", *key)
        if self.tx.one("SELECT 1 FROM images WHERE namespace = ? AND name = ?", key):
            yield Node("image", *key)
        if self.tx.one("SELECT 1 FROM ingests WHERE namespace = ? AND ref = ?", key):
            yield Node("ingest", *key)
        for (snapshotter,) in self.tx.all(
            "SELECT snapshotter FROM snapshots WHERE namespace = ? AND key = ?", key
        ):
            yield Node(f"{_SNAPSHOT}{snapshotter}", *key)
        if self.tx.one("SELECT 1 FROM mounts WHERE namespace = ? AND name = ?", key):
            yield Node("mount", *key)
        for network, _ in self._networks(namespace, name):
            yield Node("network", namespace, network)
        if self._is_leased("netns", namespace, name):
            yield Node("netns", *key)
        for kind, owner, label in self._labels(namespace, name):
            if label.startswith(_BREF):
                yield Node(kind, namespace, owner)

    def is_kept(self, node: Node, *, full: bool = False) -> bool:
        """Whether something keeps the record; with `full` also all that it refers to."""
        # With each record: whether it must be kept in full, or a flat lease on it will do.
        ways, seen = [(node, full)], {(node, full)}
        while ways:
            step = ways.pop()
            if step in self._dead:
                continue
            if self._is_root(step[0], full=step[1]):
                return True
            for keeper in self._keepers(step[0], full=step[1]):
                if keeper not in seen:
                    seen.add(keeper)
                    ways.append(keeper)
        self._dead |= seen
        return False

    def references(self, node: Node) -> Iterator[tuple[str, str]]:
        """The namespace and name of all that a record refers to."""
        kind, namespace, name = node
        for label, value in self._own_labels(node).items():
            if label.startswith(_REF):
                yield namespace, value
        if kind == "image":
            query = "SELECT digest FROM images WHERE namespace = ? AND name = ?"
            rows = self.tx.all(query, (namespace, name))
        elif kind.startswith(_SNAPSHOT):
            rows = self.tx.all(
                "SELECT key FROM snapshots WHERE id = (SELECT parent FROM snapshots"
                " WHERE snapshotter = ? AND namespace = ? AND key = ?)",
                (kind.removeprefix(_SNAPSHOT), namespace, name),
            )
        else:
            return
        for (referred,) in rows:
            yield namespace, referred

    def _is_root(self, node: Node, *, full: bool) -> bool:
        kind, namespace, name = node
        if kind in _LASTING:
            return self.tx.one(_LASTING[kind], (namespace, name)) is not None
        match kind:
            case "lease":
                there = self.tx.one(
                    "SELECT 1 FROM leases WHERE namespace = ? AND id = ?", (namespace, name)
                )
                labels = self._own_labels(node)
                ended = has_passed(labels.get(EXPIRE, ""), self._now)
                return there is not None and not ended and not (full and _FLAT in labels)
            case "image":
                there = self.tx.one(
                    "SELECT 1 FROM images WHERE namespace = ? AND name = ?", (namespace, name)
                )
                expires = self._own_labels(node).get(EXPIRE, "")
                return there is not None and not has_passed(expires, self._now)
            case "ingest":
                row = self.tx.one(
                    "SELECT expires_at FROM ingests WHERE namespace = ? AND ref = ?",
                    (namespace, name),
                )
                return row is not None and (row[0] is None or row[0] / 10**9 > self._now)
            case "network":
                return any(
                    self._is_network_kept(namespace, network)
                    for network, _ in self._networks(namespace, name)
                )
            case "netns" if not self._is_leased(*node):
                return True
            case _:
                return any(key.startswith(_ROOT) for key in self._own_labels(node))

    def _is_network_kept(self, namespace: str, id: str) -> bool:
        """Unless it was made for a lease it stays; and while containers are in it."""
        own = self._own_labels(Node("network", namespace, id))
        return (
            any(key.startswith(_ROOT) for key in own)
            or not self._is_leased("network", namespace, id)
            or self.tx.one("SELECT 1 FROM network_endpoints WHERE network = ?", (id,)) is not None
        )

    def _is_leased(self, kind: str, namespace: str, owner: str) -> bool:
        return LEASED in labels.get(self.tx, kind, namespace, owner)

    def _networks(self, namespace: str, name: str) -> list[tuple[str, str]]:
        """The id and the name of the network that is called either."""
        rows = self.tx.all(
            "SELECT id, name FROM networks WHERE namespace = ? AND (name = ? OR id = ?)",
            (namespace, name, name),
        )
        return [(row["id"], row["name"]) for row in rows]

    def _keepers(self, node: Node, *, full: bool) -> Iterator[tuple[Node, bool]]:
        """The records that keep this one if they are kept, and whether they must be in full."""
        kind, namespace, name = node
        if kind == "lease" or kind in _LASTING:
            return
        if kind == "network":  # it has two names
            for each in {each for found in self._networks(namespace, name) for each in found}:
                yield from self._holders(Node(kind, namespace, each), full=full)
        else:
            yield from self._holders(node, full=full)
        if kind == "content":
            yield from self._keepers_of_content(namespace, name, full=full)
        elif kind.startswith(_SNAPSHOT):
            yield from self._keepers_of_snapshot(node, full=full)
        for label, value in self._own_labels(node).items():
            if label.startswith(_BREF):
                yield Node(_kind_of(label.removeprefix(_BREF)), namespace, value), True

    def _holders(self, node: Node, *, full: bool) -> Iterator[tuple[Node, bool]]:
        """The leases on a record, and those whose labels refer to it."""
        kind, namespace, name = node
        resource = _RESOURCES.get(kind) or kind.replace(_SNAPSHOT, "snapshots/", 1)
        for (lease,) in self.tx.all(
            "SELECT lease FROM lease_resources WHERE namespace = ? AND id = ? AND type = ?",
            (namespace, name, resource),
        ):
            yield Node("lease", namespace, lease), full
        for owner_kind, owner, label in self._labels(namespace, name):
            if _refers(label, kind):
                yield Node(owner_kind, namespace, owner), True

    def _keepers_of_content(
        self, namespace: str, digest: str, *, full: bool
    ) -> Iterator[tuple[Node, bool]]:
        key = (namespace, digest)
        for (image,) in self.tx.all(
            "SELECT name FROM images WHERE namespace = ? AND digest = ?", key
        ):
            yield Node("image", namespace, image), full
        for (ref,) in self.tx.all(
            "SELECT ref FROM ingests WHERE namespace = ? AND expected = ?", key
        ):
            yield Node("ingest", namespace, ref), full

    def _keepers_of_snapshot(self, node: Node, *, full: bool) -> Iterator[tuple[Node, bool]]:
        kind, namespace, key = node
        snapshotter = kind.removeprefix(_SNAPSHOT)
        for (container,) in self.tx.all(
            "SELECT id FROM containers"
            " WHERE namespace = ? AND snapshot_key = ? AND snapshotter = ? LIMIT 1",
            (namespace, key, snapshotter),
        ):
            yield Node("container", namespace, container), full
        for (child,) in self.tx.all(
            "SELECT key FROM snapshots WHERE parent ="
            " (SELECT id FROM snapshots WHERE snapshotter = ? AND namespace = ? AND key = ?)",
            (snapshotter, namespace, key),
        ):
            yield Node(kind, namespace, child), full

    def _labels(self, namespace: str, value: str) -> list[tuple[str, str, str]]:
        """The labels of garbage collection that name something so: kind, owner and key."""
        return [
            (kind, owner, key)
            for kind, owner, key in self.tx.all(
                "SELECT kind, owner, key FROM labels WHERE namespace = ? AND value = ?"
                " AND key >= 'containerd.io/gc.' AND key < 'containerd.io/gc/'",
                (namespace, value),
            )
        ]

    def _own_labels(self, node: Node) -> dict[str, str]:
        rows = self.tx.all(
            "SELECT key, value FROM labels WHERE kind = ? AND namespace = ? AND owner = ?"
            " AND key >= 'containerd.io/gc.' AND key < 'containerd.io/gc/'",
            node,
        )
        return {key: value for key, value in rows if value}


def _refers(label: str, kind: str) -> bool:
    """Whether a label refers to records of a kind."""
    return label.startswith(_REF) and _kind_of(label.removeprefix(_REF)) == kind


def _kind_of(text: str) -> str:
    """`content.l.0` is content, `snapshot.overlayfs/x` is snapshot/overlayfs."""
    kind, dot, rest = text.partition(".")
    if kind == "snapshot" and dot:
        return _SNAPSHOT + rest.partition("/")[0]
    return kind.partition("/")[0]
