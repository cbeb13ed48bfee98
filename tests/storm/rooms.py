"""The rooms that store something, opened as a daemon opens them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from orlop.content import ContentStore
from orlop.diff.sealing import Sealer
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.gc import Collector
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.metadata import Database, belonging
from orlop.mounts.manager import MountManager
from orlop.mounts.store import MountStore
from orlop.rpc.grpc.client import GrpcChannel
from orlop.snapshots import (
    BtrfsDriver,
    Driver,
    ErofsDriver,
    NativeDriver,
    OverlayDriver,
    SnapshotIds,
    SnapshotStore,
)
from orlop.snapshots.proxy import ProxySnapshotter
from orlop.snapshots.remote import RemoteSnapshotter

NAMESPACES = ("one", "two")
PROXY = "orlop"
"""The snapshotter of a neighbour."""
BUILT_IN = ("overlayfs", "native", "erofs", "btrfs")
ALL = (*BUILT_IN, PROXY)


class Rooms:
    """`snapshotters` names those of `ALL` that there are; a neighbour serves at `neighbour`."""

    def __init__(
        self, root: Path, closing: ExitStack, snapshotters: Sequence[str], neighbour: Path
    ) -> None:
        root.mkdir(exist_ok=True)
        exchange = Exchange()
        self.forks = ForkServer()  # which starts with the first worker
        closing.callback(self.forks.stop)
        self.database = Database(root / "metadata.db")
        closing.callback(self.database.close)
        ours = [name for name in snapshotters if name != PROXY]
        belonging.claim(self.database, belonging.places(root, ours))
        self.content = ContentStore(self.database, root / "content", exchange)
        self.content.reap()
        ids = SnapshotIds(self.database)
        self.stores: dict[str, SnapshotStore] = {}
        for name in ours:
            driver = self._drivers()[name](root / "snapshots" / name)
            store = SnapshotStore(self.database, ids, name, driver, exchange)
            closing.callback(store.close)
            store.reap()
            self.stores[name] = store
        self.snapshotters: dict[str, SnapshotStore | ProxySnapshotter] = {**self.stores}
        if PROXY in snapshotters:
            channel = GrpcChannel(str(neighbour))
            closing.callback(channel.close)
            remote = RemoteSnapshotter(PROXY, str(neighbour), channel)
            self.snapshotters[PROXY] = ProxySnapshotter(self.database, ids, remote, exchange)
            closing.callback(self.snapshotters[PROXY].close)
        self.images = ImageStore(self.database, exchange)
        self.leases = LeaseStore(self.database)
        self.mounts = MountManager(MountStore(self.database), root / "mounts", (root,))
        self.mounts.reap()
        self.collector = Collector(
            self.database,
            {
                "content": self.content.collect,
                "ingest": self.content.collect_ingests,
                "image": self.images.collect,
                "lease": self.leases.collect,
                "mount": self.mounts.collect,
                **{f"snapshot/{name}": each.collect for name, each in self.snapshotters.items()},
            },
        )

    def _drivers(self) -> dict[str, Callable[[Path], Driver]]:
        return {
            "overlayfs": OverlayDriver,
            "native": NativeDriver,
            "erofs": partial(ErofsDriver, seal=Sealer(self.forks)),
            "btrfs": BtrfsDriver,
        }
