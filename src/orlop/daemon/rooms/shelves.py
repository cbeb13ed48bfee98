"""The snapshotters: those built in, and those of others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from orlop.daemon.config import Config
from orlop.diff.owners import Owners
from orlop.diff.sealing import Sealer
from orlop.errors import OrlopError, Unavailable
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.snapshots import (
    BtrfsDriver,
    Defaults,
    Driver,
    ErofsDriver,
    NativeDriver,
    OverlayDriver,
    SnapshotIds,
    SnapshotStore,
)
from orlop.snapshots.proxy import ProxySnapshotter
from orlop.snapshots.quota import Limits
from orlop.snapshots.remote import RemoteSnapshotter

_DRIVERS: Mapping[str, Callable[[Path, ForkServer], Driver]] = {
    "overlayfs": lambda root, _: OverlayDriver(root),
    "erofs": lambda root, forks: ErofsDriver(root, Sealer(forks)),
    "btrfs": lambda root, _: BtrfsDriver(root),
    "native": lambda root, _: NativeDriver(root),
}
BUILT_IN = tuple(_DRIVERS)
"""The names of those that have folders below our root."""

_log = logging.getLogger(__name__)


def make(
    config: Config,
    database: Database,
    exchange: Exchange,
    forks: ForkServer,
    closing: ExitStack,
    unusable: Mapping[Path, OSError],
) -> tuple[dict[str, SnapshotStore], dict[str, OrlopError], dict[str, ProxySnapshotter]]:
    """The snapshotters that work here, why the others do not, and those of others.

    `unusable` are folders that must not be touched, and why.
    """
    ids = SnapshotIds(database)
    wanted = config.snapshots
    limits = Limits(wanted.quota_size, wanted.quota_inodes)
    defaults = Defaults(limits, wanted.volatile)
    found: dict[str, SnapshotStore] = {}
    broken: dict[str, OrlopError] = {}
    owners = Owners(forks) if wanted.slow_chown else None
    for name, driver in _DRIVERS.items():
        root = Path(config.root, "snapshots", name)
        try:
            if root in unusable:
                raise unusable[root]
            made = driver(root, forks)
        except OSError as error:
            broken[name] = Unavailable(f'snapshotter "{name}": {error}')
            _log.info("snapshotter=%s does not work here: %s", name, error)
            continue
        if owners and made.maps_ids and not made.images:  # images are mounts of their own
            made.maps_ids = _can_be_shown(owners, made)
        store = SnapshotStore(
            database, ids, name, made, exchange, defaults, owners, durable=config.snapshots.sync
        )
        found[name] = store
        closing.callback(store.close)
        store.reap()
    return found, broken, _proxies(config, database, ids, exchange, closing)


def _can_be_shown(owners: Owners, driver: Driver) -> bool:
    try:
        return owners.can_be_shown(driver.snapshots)
    except OrlopError as error:
        _log.info('ids cannot be mapped below "%s", files are copied: %s', driver.root, error)
        return False


def _proxies(
    config: Config, database: Database, ids: SnapshotIds, exchange: Exchange, closing: ExitStack
) -> dict[str, ProxySnapshotter]:
    """Snapshotters of others. They are called when they are used, and may come later."""
    if not config.proxy_plugins:
        return {}
    from orlop.rpc.grpc.client import GrpcChannel  # noqa: PLC0415 - brings gRPC's library

    found = {}
    for name, plugin in config.proxy_plugins.items():
        channel = GrpcChannel(plugin.address)
        remote = RemoteSnapshotter(name, plugin.address, channel)
        found[name] = ProxySnapshotter(database, ids, remote, exchange)
        closing.callback(found[name].close)
        closing.callback(channel.close)  # before: it ends the call that the other is in
    return found
