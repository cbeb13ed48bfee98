"""The one place where the rooms meet: each is made with what it needs, in order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from orlop.containers.service import ContainersService
from orlop.content.service import ContentService
from orlop.daemon import catalogue, metrics, registry, rooms, status, tracing
from orlop.daemon.config import Config
from orlop.daemon.rooms import Rooms, ground
from orlop.diff.compare import Comparer
from orlop.diff.service import DiffService
from orlop.events.service import EventsService, TtrpcEventsService
from orlop.fork.client import ForkServer
from orlop.health import ContainerHealthService
from orlop.images.service import ImagesService
from orlop.introspection import identity
from orlop.introspection.service import IntrospectionService, VersionService
from orlop.leases.service import LeasesService
from orlop.mounts.service import MountsService
from orlop.namespaces.service import NamespacesService
from orlop.network.lasting import Lasting
from orlop.network.links_service import LinksService
from orlop.network.service import NetworkNamespacesService, NetworksService
from orlop.rpc import ServiceTable
from orlop.rpc.calls import Calls
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.health import HealthService
from orlop.rpc.reactor import Reactor
from orlop.rpc.serving import SocketServer
from orlop.rpc.ttrpc.server import TtrpcServer
from orlop.runtime.exits import ExitWatch
from orlop.runtime.sandbox_service import SandboxControllerService
from orlop.runtime.service import TasksService
from orlop.sandboxes import SandboxStore
from orlop.sandboxes.service import SandboxStoreService
from orlop.snapshots.guests import GuestSnapshotsService
from orlop.snapshots.service import SnapshotsService
from orlop.tally import Counter
from orlop.transfer.service import TransferService
from orlop.transfer.streams import StreamingService
from orlop.upkeep import Adopter, Checker
from orlop.upkeep.service import StoreService

_log = logging.getLogger(__name__)


class Servers:
    """Both transports over one table. Listening comes before serving: who calls too early waits."""

    def __init__(self, config: Config, table: ServiceTable, reactor: Reactor) -> None:
        self._config = config
        counted = bool(config.metrics.address)
        self.calls = {"grpc": Calls(), "ttrpc": Calls()} if counted else {}
        self._grpc = GrpcServer(table, reactor, calls=self.calls.get("grpc"))
        self._ttrpc = TtrpcServer(
            table, reactor, same_user=config.grpc.private, calls=self.calls.get("ttrpc")
        )

    def listen(self) -> None:
        """Take both sockets; FailedPrecondition when another server has one."""
        wanted = self._config.grpc
        for server, path in (
            (self._grpc, self._config.address),
            (self._ttrpc, self._config.ttrpc_address),
        ):
            server.add_unix(Path(path), wanted.mode, wanted.uid, wanted.gid)

    def serve(self) -> None:
        self._grpc.start()
        self._ttrpc.start()

    def counted(self) -> dict[str, tuple[SocketServer, Calls]]:
        """The servers with what they count, where metrics are served."""
        servers = {"grpc": self._grpc, "ttrpc": self._ttrpc}
        return {name: (servers[name], calls) for name, calls in self.calls.items()}

    def stop(self) -> None:
        self._grpc.stop(grace=0.2)
        self._ttrpc.stop()


def serve(config: Config, forks: ForkServer, closing: ExitStack) -> None:
    """Make every room and serve them all; `closing` undoes it, last made first."""
    spans = tracing.start(config.tracing, closing)
    made = rooms.make(ground.lay(config, forks, closing))
    servers = Servers(config, _table(made), made.ground.reactor)
    closing.callback(servers.stop)
    guests = _guests(made)
    doors = (_registry(made), _metrics(made, servers, spans), _status(made))
    # The first things to be done, or all that wait for shims, plugins and copies wait on.
    for store in made.storage.snapshotters.values():
        closing.callback(store.stop)
    closing.callback(made.execution.tasks.stop)
    closing.callback(made.networking.cni.stop)
    closing.callback(made.watchers.stop)
    servers.listen()
    if guests is not None:
        guests.add_unix(Path(config.snapshots.serve), 0o600)
    made.execution.recover(made.ground)
    made.watchers.start()
    servers.serve()
    if guests is not None:
        guests.start()
    for door in doors:
        if door is not None:
            door()


def _table(made: Rooms) -> ServiceTable:
    kept, moved, net, run = made.storage, made.transfers, made.networking, made.execution
    base, default = made.ground, made.ground.config.snapshots.default
    content, images, leases, forks = kept.content, kept.images, kept.leases, base.forks
    collect = made.watchers.garbage.collect
    containers, pid_of = kept.containers, run.tasks.pid_of
    lasting = Lasting(
        net.connections, containers.get, containers.set_label, pid_of, unusable=net.unusable
    )
    checker = Checker(base.root, forks, base.database, content, kept.snapshotters, moved.resolver)
    adopter = Adopter(forks, content, images, leases, kept.namespaces)
    return ServiceTable(
        HealthService(),
        VersionService(),
        IntrospectionService(
            catalogue.make(base, kept, net, run), identity.load(base.root)
        ),
        NamespacesService(kept.namespaces),
        ContentService(content),
        ImagesService(images, collect),
        ContainersService(containers),
        SnapshotsService(kept.everywhere, default),
        MountsService(kept.mounts),
        DiffService(moved.applier, Comparer(content, forks)),
        TasksService(run.tasks),
        ContainerHealthService(made.watchers.health),
        SandboxStoreService(SandboxStore(base.database)),
        SandboxControllerService(run.sandboxes),
        LeasesService(leases, collect),
        NetworksService(net.networks, net.connections, lasting, net.kernel, pid_of),
        NetworkNamespacesService(net.named, net.kernel, pid_of),
        LinksService(net.kernel, net.pins, pid_of, forks),
        EventsService(base.exchange),
        TtrpcEventsService(ExitWatch(run.tasks, base.exchange)),
        StreamingService(moved.streams),
        StoreService(base.root, forks, checker, adopter),
        TransferService(
            moved.puller, moved.pusher, moved.importer, moved.exporter, images, moved.streams,
            moved.resolver, default,
        ),
    )  # fmt: skip


def _guests(made: Rooms) -> GrpcServer | None:
    """A server of our snapshotters for others, where that is wanted."""
    wanted = made.ground.config.snapshots
    if not wanted.serve:
        return None
    service = GuestSnapshotsService(made.storage.everywhere, wanted.default)
    guests = GrpcServer(ServiceTable(service), made.ground.reactor)
    made.ground.closing.callback(guests.stop, grace=0.2)
    return guests


# What is open to others is bound before anything is at work, and opened when everything is.


def _registry(made: Rooms) -> Callable[[], None] | None:
    wanted = made.ground.config.serve
    if not wanted.address:
        return None
    kept = made.storage
    origin = registry.start(wanted, kept.content, kept.images, kept.leases, made.ground.closing)

    def opened() -> None:
        origin.start()
        _log.info('serving images of "%s" as registry "%s"', wanted.namespace, origin.address)

    return opened


def _metrics(made: Rooms, servers: Servers, spans: Counter) -> Callable[[], None] | None:
    if not made.ground.config.metrics.address:
        return None
    scraped = metrics.listen(made.ground.config, made.ground.closing)

    def opened() -> None:
        metrics.start(scraped, made, servers.counted(), spans)
        _log.info('serving metrics on "%s"', scraped.address)

    return opened


def _status(made: Rooms) -> Callable[[], None] | None:
    if not made.ground.config.status.address:
        return None
    shown = status.listen(made.ground.config, made.ground.closing)

    def opened() -> None:
        status.start(shown, made)
        _log.info('serving the status page on "%s"', shown.address)

    return opened
