"""The rooms of what is kept: content, snapshots, and the records of all else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orlop.containers import ContainerStore
from orlop.content import ContentStore
from orlop.content.protection import Protection
from orlop.daemon.rooms import shelves
from orlop.daemon.rooms.ground import Ground
from orlop.errors import FailedPrecondition, OrlopError
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.metadata import belonging
from orlop.mounts import MountManager
from orlop.mounts.store import MountStore
from orlop.namespaces.store import NamespaceStore
from orlop.snapshots import SnapshotStore
from orlop.snapshots.proxy import ProxySnapshotter
from orlop.snapshots.shelf import Shelf
from orlop.snapshots.snapshotter import Snapshotter


@dataclass(frozen=True, slots=True)
class Storage:
    content: ContentStore
    snapshotters: Mapping[str, SnapshotStore]
    proxies: Mapping[str, ProxySnapshotter]
    broken: Mapping[str, OrlopError]
    """Why a built-in snapshotter does not work here."""
    namespaces: NamespaceStore
    containers: ContainerStore
    images: ImageStore
    leases: LeaseStore
    mounts: MountManager

    @property
    def everywhere(self) -> dict[str, Snapshotter]:
        """All snapshotters, by name."""
        return {**self.snapshotters, **self.proxies}

    @property
    def shelves(self) -> dict[str, Shelf]:
        """The records of all snapshotters, by name."""
        return {**self.snapshotters, **self.proxies}


def make(ground: Ground) -> Storage:
    """Also removes what a crash has left. FailedPrecondition without the default snapshotter."""
    config, database, exchange = ground.config, ground.database, ground.exchange
    # Before anything is opened, and takes what it does not know for garbage.
    unusable = belonging.claim(database, belonging.places(ground.root, shelves.BUILT_IN))
    content = ContentStore(
        database,
        ground.root / "content",
        exchange,
        shared=config.content.sharing == "shared",
        protection=Protection(wanted=config.content.verity),
    )
    content.reap()
    snapshotters, broken, proxies = shelves.make(
        config, database, exchange, ground.forks, ground.closing, unusable
    )
    wanted = config.snapshots.default
    if wanted not in snapshotters and wanted not in proxies:
        why = f": {broken[wanted].message}" if wanted in broken else ""
        raise FailedPrecondition(f'the default snapshotter "{wanted}" is missing{why}')
    mounts = MountManager(
        MountStore(database), ground.state / "mounts", (ground.root, ground.state)
    )
    mounts.reap()
    return Storage(
        content=content,
        snapshotters=snapshotters,
        proxies=proxies,
        broken=broken,
        namespaces=NamespaceStore(database, exchange, content.remove_orphan_ingest),
        containers=ContainerStore(database, exchange),
        images=ImageStore(database, exchange),
        leases=LeaseStore(database),
        mounts=mounts,
    )
