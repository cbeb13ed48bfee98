"""What a check asks the database. All of it only reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from orlop.metadata import Transaction
from orlop.upkeep import findings
from orlop.upkeep.findings import Finding

_SHOWN = 20
_SOURCE = "containerd.io/distribution.source."
_REFERS = "key >= 'containerd.io/gc.ref.content' AND key < 'containerd.io/gc.ref.contenu'"
# An index refers to the manifests of all platforms, of which most need not be here.
_INDEX_CHILD = (
    "key >= 'containerd.io/gc.ref.content.m.' AND key < 'containerd.io/gc.ref.content.m/'"
)
# What is of before that waits for nothing any more.
_YESTERDAY = "(CAST(strftime('%s', 'now') AS INTEGER) - 86400) * 1000000000"

# What owns the labels of a kind, and what a lease holds by type; snapshots have their own.
_OWNERS = {
    "content": "SELECT 1 FROM content o WHERE o.namespace = x.namespace AND o.digest = x.{}",
    "image": "SELECT 1 FROM images o WHERE o.namespace = x.namespace AND o.name = x.{}",
    "container": "SELECT 1 FROM containers o WHERE o.namespace = x.namespace AND o.id = x.{}",
    "lease": "SELECT 1 FROM leases o WHERE o.namespace = x.namespace AND o.id = x.{}",
    "ingest": "SELECT 1 FROM ingests o WHERE o.namespace = x.namespace AND o.ref = x.{}",
}
_LABELLED = ("content", "image", "container", "lease")
_HELD = {"content": "content", "images": "image", "ingests": "ingest"}
_SNAPSHOT_OWNER = (
    "SELECT 1 FROM snapshots o WHERE o.namespace = x.namespace AND o.key = x.{}"
    " AND o.snapshotter = substr(x.{}, {})"
)
_LEASE_OF_TODAY = (
    "SELECT 1 FROM lease_resources r JOIN leases l ON l.namespace = r.namespace AND l.id = r.lease"
    " WHERE r.namespace = x.namespace AND r.type = 'content' AND r.id = x.owner"
    f" AND l.created_at >= {_YESTERDAY}"
)


class Snapshot(NamedTuple):
    id: int
    snapshotter: str
    namespace: str
    key: str


def count_snapshots(tx: Transaction) -> int:
    return int(tx.all("SELECT count(*) FROM snapshots")[0][0])


def blob_sizes(tx: Transaction) -> dict[str, int]:
    return dict(tx.execute("SELECT digest, size FROM content"))


def has_blob(tx: Transaction, digest: str) -> bool:
    return tx.one("SELECT 1 FROM content WHERE digest = ?", (digest,)) is not None


def has_ingest(tx: Transaction, directory: str) -> bool:
    return tx.one("SELECT 1 FROM ingests WHERE directory = ?", (directory,)) is not None


def held_kind(resource: str) -> str:
    """The kind of record that a lease holds by a type of resource."""
    return _HELD.get(resource) or resource.replace("snapshots/", "snapshot/", 1)


def is_there(tx: Transaction, kind: str, namespace: str, name: str) -> bool:
    """Whether there is a record of a kind, as labels call it."""
    if kind.startswith("snapshot/"):
        owner = _SNAPSHOT_OWNER.format("name", "kind", len("snapshot/") + 1)
    else:
        owner = _OWNERS[kind].format("name")
    one = f"SELECT 1 FROM (SELECT ? AS kind, ? AS namespace, ? AS name) x WHERE EXISTS ({owner})"
    return tx.one(one, (kind, namespace, name)) is not None


def snapshots(tx: Transaction) -> list[Snapshot]:
    return [
        Snapshot(*row) for row in tx.all("SELECT id, snapshotter, namespace, key FROM snapshots")
    ]


def snapshot(tx: Transaction, number: int) -> Snapshot | None:
    row = tx.one("SELECT id, snapshotter, namespace, key FROM snapshots WHERE id = ?", (number,))
    return Snapshot(*row) if row else None


def users_of_blob(tx: Transaction, digest: str, namespace: str = "") -> tuple[str, ...]:
    """The images of a namespace, or of all, that lead to a blob, as namespace/name."""
    found = tx.all(
        "WITH RECURSIVE up (namespace, digest) AS ("
        " SELECT name, ? FROM namespaces WHERE ? IN (name, '') UNION"
        " SELECT l.namespace, l.owner FROM up JOIN labels l"
        " ON l.namespace = up.namespace AND l.value = up.digest AND l.kind = 'content'"
        f" AND {_REFERS})"
        " SELECT i.namespace || '/' || i.name FROM up JOIN images i"
        " ON i.namespace = up.namespace AND i.digest = up.digest ORDER BY 1 LIMIT ?",
        (digest, namespace, _SHOWN),
    )
    return tuple(row[0] for row in found)


def users_of_snapshot(tx: Transaction, number: int) -> tuple[str, ...]:
    """The containers that stand on a snapshot, as namespace/id."""
    found = tx.all(
        "WITH RECURSIVE down (id) AS (SELECT ? UNION"
        " SELECT s.id FROM snapshots s JOIN down ON s.parent = down.id)"
        " SELECT c.namespace || '/' || c.id FROM down JOIN snapshots s ON s.id = down.id"
        " JOIN containers c ON c.namespace = s.namespace AND c.snapshot_key = s.key"
        " AND c.snapshotter = s.snapshotter ORDER BY 1 LIMIT ?",
        (number, _SHOWN),
    )
    return tuple(row[0] for row in found)


def at_odds(tx: Transaction) -> Iterator[Finding]:
    """Records that do not agree with each other."""
    yield from _missing_targets(tx)
    yield from _missing_blobs(tx)
    yield from _lost_roots(tx)
    yield from _bad_parents(tx)
    yield from _dangling_leases(tx)
    yield from _stray_labels(tx)


def _missing_targets(tx: Transaction) -> list[Finding]:
    return [
        Finding(
            kind=findings.MISSING_TARGET, namespace=namespace, name=digest,
            problem=f'image "{name}" is this blob, which is not here',
            used_by=(f"{namespace}/{name}",),
        )
        for namespace, name, digest in tx.all(
            "SELECT x.namespace, x.name, x.digest FROM images x"
            f" WHERE NOT EXISTS ({_OWNERS['content'].format('digest')})"
        )
    ]  # fmt: skip


def _missing_blobs(tx: Transaction) -> Iterator[Finding]:
    """All but what pulls bring that run or were broken off: blobs that are being written, and those
    that no image needs as yet, but only what leases of today hold."""
    for namespace, digest, owner, expected in tx.all(
        f"SELECT x.namespace, x.value, min(x.owner), min(EXISTS ({_LEASE_OF_TODAY})) FROM labels x"
        f" WHERE x.kind = 'content' AND {_REFERS} AND NOT ({_INDEX_CHILD})"
        f" AND EXISTS ({_OWNERS['content'].format('owner')})"
        f" AND NOT EXISTS ({_OWNERS['content'].format('value')})"
        " AND NOT EXISTS (SELECT 1 FROM ingests i"
        " WHERE i.namespace = x.namespace AND i.expected = x.value)"
        " GROUP BY x.namespace, x.value"
    ):
        users = users_of_blob(tx, digest, namespace)
        if users or not expected:
            yield Finding(
                kind=findings.MISSING_BLOB, namespace=namespace, name=digest, owner=owner,
                problem=f"{owner} consists of it, but it is not here",
                used_by=users,
            )  # fmt: skip


def _lost_roots(tx: Transaction) -> list[Finding]:
    return [
        Finding(
            kind=findings.LOST_ROOT, namespace=namespace, name=container, store=snapshotter,
            problem=f'its snapshot "{key}" is not there',
        )
        for namespace, container, snapshotter, key in tx.all(
            "SELECT c.namespace, c.id, c.snapshotter, c.snapshot_key FROM containers c"
            " WHERE c.snapshot_key != '' AND NOT EXISTS (SELECT 1 FROM snapshots s"
            " WHERE s.namespace = c.namespace AND s.key = c.snapshot_key"
            " AND c.snapshotter IN (s.snapshotter, ''))"
        )
    ]  # fmt: skip


def _bad_parents(tx: Transaction) -> list[Finding]:
    return [
        Finding(
            kind=findings.BAD_PARENT, namespace=namespace, name=key, store=snapshotter,
            number=number, problem=problem, used_by=users_of_snapshot(tx, number),
        )
        for number, snapshotter, namespace, key, problem in tx.all(
            "SELECT s.id, s.snapshotter, s.namespace, s.key, CASE"
            " WHEN p.id IS NULL THEN 'its parent is not there'"
            " WHEN p.kind != 3 THEN 'its parent \"' || p.key || '\" is not committed'"
            " ELSE 'its parent is of another namespace or snapshotter' END"
            " FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent WHERE s.parent IS NOT NULL"
            " AND (p.id IS NULL OR p.kind != 3 OR p.namespace != s.namespace"
            " OR p.snapshotter != s.snapshotter)"
        )
    ]  # fmt: skip


def _dangling_leases(tx: Transaction) -> list[Finding]:
    """What leases of yesterday hold and is not there; younger ones may wait for what is to come."""
    absent = " OR ".join(
        f"(x.type = '{held}' AND NOT EXISTS ({_OWNERS[kind].format('id')}))"
        for held, kind in _HELD.items()
    )
    snapshot = _SNAPSHOT_OWNER.format("id", "type", len("snapshots/") + 1)
    return [
        Finding(
            kind=findings.DANGLING_LEASE, namespace=namespace, name=name, store=held, owner=lease,
            problem=f'lease "{lease}" holds it, but it is not here',
        )
        for namespace, lease, held, name in tx.all(
            "SELECT x.namespace, x.lease, x.type, x.id FROM lease_resources x JOIN leases l"
            " ON l.namespace = x.namespace AND l.id = x.lease"
            f" AND l.created_at < {_YESTERDAY}"
            f" WHERE {absent} OR (x.type LIKE 'snapshots/%' AND NOT EXISTS ({snapshot}))"
        )
    ]  # fmt: skip


def _stray_labels(tx: Transaction) -> list[Finding]:
    absent = " OR ".join(
        f"(x.kind = '{kind}' AND NOT EXISTS ({_OWNERS[kind].format('owner')}))"
        for kind in _LABELLED
    )
    snapshot = _SNAPSHOT_OWNER.format("owner", "kind", len("snapshot/") + 1)
    return [
        Finding(
            kind=findings.STRAY_LABEL, namespace=namespace, name=owner, store=kind,
            problem=f"{number} labels of a {kind} that is not here",
        )
        for kind, namespace, owner, number in tx.all(
            "SELECT x.kind, x.namespace, x.owner, count(*) FROM labels x"
            f" WHERE {absent} OR (x.kind LIKE 'snapshot/%' AND NOT EXISTS ({snapshot}))"
            " GROUP BY x.kind, x.namespace, x.owner"
        )
    ]  # fmt: skip


def sources(tx: Transaction, digest: str) -> list[tuple[str, str]]:
    """The labels that say from which repositories of which registries a blob came."""
    return [
        (key, value)
        for key, value in tx.all(
            "SELECT DISTINCT key, value FROM labels WHERE kind = 'content' AND owner = ?"
            " AND substr(key, 1, ?) = ?",
            (digest, len(_SOURCE), _SOURCE),
        )
    ]


def repositories(labels: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The host and path of each repository that labels of sources name, once."""
    found = [
        (key.removeprefix(_SOURCE), path)
        for key, value in labels
        for path in value.split(",")
        if path
    ]
    return list(dict.fromkeys(found))


def target(tx: Transaction, digest: str) -> tuple[str, int] | None:
    """The media type and size of a blob that is an image's."""
    row = tx.one("SELECT media_type, size FROM images WHERE digest = ? LIMIT 1", (digest,))
    return (row[0], row[1]) if row else None


def parents_of_blob(tx: Transaction, digest: str) -> list[tuple[str, str, int]]:
    """The blobs that refer to one: namespace, digest and size."""
    return [
        (namespace, owner, size)
        for namespace, owner, size in tx.all(
            "SELECT c.namespace, c.digest, c.size FROM labels l JOIN content c"
            " ON c.namespace = l.namespace AND c.digest = l.owner"
            f" WHERE l.kind = 'content' AND l.value = ? AND {_REFERS} LIMIT ?",
            (digest, _SHOWN),
        )
    ]


def size_of(tx: Transaction, digest: str) -> int:
    """The size that a record says; 0 without one."""
    row = tx.one("SELECT size FROM content WHERE digest = ? LIMIT 1", (digest,))
    return int(row[0]) if row else 0
