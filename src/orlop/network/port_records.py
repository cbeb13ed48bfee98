"""Records of the host's ports that lead to containers: one that leads to two would lead to either.

That no program has a port is seen to by `ports`, with sockets; which not every kernel has for every
protocol, and which a daemon that has just been started has not got again yet.
"""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Sequence

from orlop.errors import FailedPrecondition
from orlop.metadata import Transaction
from orlop.network.model import Port

_EVERY_VERSION = frozenset((4, 6))
_PLACES = (
    "network_endpoints JOIN networks ON networks.id = network AND driver = 'bridge'"
    " AND NOT internal WHERE network_endpoints.namespace = ? AND container = ?"
)
"""Of a container, in networks that publish (`Network.publishes`)."""


def replace(tx: Transaction, namespace: str, container: str, ports: Sequence[Port]) -> None:
    """Note which ports lead to a container; FailedPrecondition for one that leads elsewhere."""
    tx.execute(
        "DELETE FROM network_ports WHERE namespace = ? AND container = ?", (namespace, container)
    )
    for each in ports:
        _check_free(tx, namespace, container, each)
        tx.execute(
            "INSERT INTO network_ports VALUES (?, ?, ?, ?, ?, ?, ?)",
            (namespace, container, each.protocol, each.host_address, each.host_port,
             each.container_port, each.count),
        )  # fmt: skip


def close_unled(tx: Transaction, namespace: str, container: str) -> None:
    """Forget the ports of who is in no network any more to which they could lead."""
    key = (namespace, container)
    tx.execute(
        "DELETE FROM network_ports WHERE namespace = ? AND container = ?"
        f" AND NOT EXISTS (SELECT 1 FROM {_PLACES})",
        (*key, *key),
    )


def port(row: sqlite3.Row) -> Port:
    return Port(
        container_port=row["container_port"],
        host_port=row["host_port"],
        protocol=row["protocol"],
        host_address=row["host_address"],
        count=row["count"],
    )


def _check_free(tx: Transaction, namespace: str, container: str, wanted: Port) -> None:
    rows = tx.all(
        "SELECT * FROM network_ports"
        " WHERE protocol = ? AND host_port < ? AND host_port + count > ?",
        (wanted.protocol, wanted.host_port + wanted.count, wanted.host_port),
    )
    for row in rows:
        if row["host_address"] and wanted.host_address:
            meet = row["host_address"] == wanted.host_address
        else:
            theirs = _versions(tx, row["namespace"], row["container"], row["host_address"])
            meet = bool(theirs & _versions(tx, namespace, container, wanted.host_address))
        if meet:
            where = wanted.host_address or "any address"
            number = max(row["host_port"], wanted.host_port)
            raise FailedPrecondition(
                f"{where}, port {number}/{wanted.protocol} of the host is taken"
                f' by container "{row["container"]}"'
            )


def _versions(tx: Transaction, namespace: str, container: str, host: str) -> frozenset[int]:
    """By which versions of IP a port leads to a container: to where it came first."""
    if host:
        return frozenset((ipaddress.ip_address(host).version,))
    rows = tx.all(
        "SELECT address FROM network_addresses WHERE namespace = ? AND container = ?"
        f" AND network = (SELECT network FROM {_PLACES} ORDER BY position LIMIT 1)",
        (namespace, container, namespace, container),
    )
    first = [row["address"] for row in rows]
    return frozenset(ipaddress.ip_address(each).version for each in first) or _EVERY_VERSION
