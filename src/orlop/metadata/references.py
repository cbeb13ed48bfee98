"""What every room does where it creates a record: name its namespace, hold its lease."""

from __future__ import annotations

from orlop.errors import NotFound
from orlop.metadata.database import Transaction

LEASED = "orlop/leased"
"""Label of a network or netns that was made for a lease: it goes when nothing keeps it."""


def ensure_namespace(tx: Transaction, namespace: str) -> None:
    """Create the namespace if it is not there: the first write to one makes it."""
    tx.execute("INSERT OR IGNORE INTO namespaces VALUES (?)", (namespace,))


def namespace_is_gone(tx: Transaction, namespace: str, name: str) -> bool:
    """Whether what has this name in a namespace should have gone with that (`sweeping.Dead`)."""
    return tx.one("SELECT 1 FROM namespaces WHERE name = ?", (namespace,)) is None


def attach_to_lease(
    tx: Transaction, namespace: str, lease: str, resource_type: str, resource_id: str
) -> None:
    """Add a resource to the lease of the current call; does nothing when `lease` is empty.

    Raises NotFound for a lease that does not exist. `resource_type` is 'content', 'ingests',
    'images', 'mounts', 'networks', 'netns' or 'snapshots/<snapshotter>'.
    """
    if not lease:
        return
    if tx.one("SELECT 1 FROM leases WHERE namespace = ? AND id = ?", (namespace, lease)) is None:
        raise NotFound(f'lease "{lease}"')
    tx.execute(
        "INSERT OR IGNORE INTO lease_resources VALUES (?, ?, ?, ?)",
        (namespace, lease, resource_type, resource_id),
    )


def detach_from_lease(
    tx: Transaction, namespace: str, lease: str, resource_type: str, resource_id: str
) -> None:
    """Remove a resource from a lease; absence is no error."""
    tx.execute(
        "DELETE FROM lease_resources WHERE namespace = ? AND lease = ? AND type = ? AND id = ?",
        (namespace, lease, resource_type, resource_id),
    )
