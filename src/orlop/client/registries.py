"""Where the operator says how registries are reached: the daemon tells, as far as there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orlop.client.connection import Connection
from orlop.errors import OrlopError

DEFAULTS = (Path("/etc/orlop/certs.d"), Path("/etc/containerd/certs.d"))
_PLUGIN = "io.orlop.registry.v1", "hosts"


def hosts_folders(connection: Connection) -> Sequence[Path]:
    """The folders of `hosts.toml` files that the daemon uses."""
    told = connection.exports(*_PLUGIN).get("config-path")
    return DEFAULTS if told is None else [Path(each) for each in told.split(":") if each]


def hosts_folders_at(address: str) -> Sequence[Path]:
    """As `hosts_folders`, of the daemon at `address`; the usual ones where none answers."""
    try:
        with Connection(address) as connection:
            return hosts_folders(connection)
    except OrlopError:
        return DEFAULTS
