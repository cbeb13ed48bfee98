"""The one place where the rooms meet: each is made with what it needs, in order."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from orlop.containers import ContainerStore
from orlop.containers.service import ContainersService
from orlop.content import ContentStore
from orlop.content.protection import Protection
from orlop.content.service import ContentService
from orlop.daemon import metrics, registry, shelves, status, tracing
from orlop.daemon.autoremove import AutoRemover
from orlop.daemon.config import Config
from orlop.daemon.oom import OomRecorder
from orlop.diff.apply import Applier, Limits
from orlop.diff.compare import Comparer
from orlop.diff.folders import FolderStore
from orlop.diff.processors import Processor, Processors
from orlop.diff.service import DiffService
from orlop.errors import FailedPrecondition
from orlop.events import Exchange
from orlop.events.service import EventsService, TtrpcEventsService
from orlop.fork.client import ForkServer
from orlop.gc import Collector, Scheduler, Thresholds
from orlop.health import ContainerHealthService, Prober, StateFiles
from orlop.health import Monitor as HealthMonitor
from orlop.images.service import ImagesService
from orlop.images.store import ImageStore
from orlop.introspection import Catalogue, Plugin, identity, plugins
from orlop.introspection.service import API_VERSION, IntrospectionService, VersionService
from orlop.leases.service import LeasesService
from orlop.leases.store import LeaseStore
from orlop.metadata import Database
from orlop.metadata.sweeping import Sweep
from orlop.mounts import MountManager
from orlop.mounts.service import MountsService
from orlop.mounts.store import MountStore
from orlop.namespaces.service import NamespacesService
from orlop.namespaces.store import NamespaceStore
from orlop.network import Kernel, PinnedNamespaces
from orlop.network.cni import Cni, Configurations, Plugins, Results
from orlop.network.cni.results import CACHE
from orlop.network.cni_networks import CniNetworks
from orlop.network.connections import Connections
from orlop.network.dns.director import NameServer
from orlop.network.firewall import Backend, Firewall
from orlop.network.firewall.iptables import Iptables
from orlop.network.firewall.nftables import Nftables
from orlop.network.hosts_files import HostsFiles
from orlop.network.links_service import LinksService
from orlop.network.loopback import Loopback
from orlop.network.named import NamedNamespaces
from orlop.network.networks import Networks
from orlop.network.plan import Planner
from orlop.network.ports import HostPorts
from orlop.network.service import NetworkNamespacesService, NetworksService
from orlop.network.store import NetworkStore, Pools
from orlop.network.watch import NetworkWatch
from orlop.oci import platform
from orlop.restart import POLICIES, Monitor, Reviver
from orlop.rpc import ServiceTable
from orlop.rpc.calls import Calls
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.health import HealthService
from orlop.rpc.reactor import Reactor
from orlop.rpc.serving import SocketServer
from orlop.rpc.ttrpc.server import TtrpcServer
from orlop.runtime import Bundles, Shims, TaskManager
from orlop.runtime.binary import BinaryShims
from orlop.runtime.checkpoints import Checkpoints
from orlop.runtime.exits import ExitWatch
from orlop.runtime.forked import ForkedShims
from orlop.runtime.moves import CgroupMoves, own_procs
from orlop.runtime.recovery import recover
from orlop.runtime.sandbox_service import SandboxControllerService
from orlop.runtime.sandboxes import FOLDER as SANDBOXES
from orlop.runtime.sandboxes import SandboxManager
from orlop.runtime.service import TasksService
from orlop.sandboxes import SandboxStore
from orlop.sandboxes.service import SandboxStoreService
from orlop.snapshots.guests import GuestSnapshotsService
from orlop.snapshots.service import SnapshotsService
from orlop.snapshots.shelf import Shelf
from orlop.snapshots.snapshotter import Snapshotter
from orlop.sys.process import CAP_NET_ADMIN, bounding_capabilities, in_user_namespace
from orlop.transfer import Puller, Pusher
from orlop.transfer.archive import Exporter, Importer
from orlop.transfer.resolver import Resolver
from orlop.transfer.service import TransferService
from orlop.transfer.streams import StreamingService, Streams
from orlop.transfer.unpacking import Unpacking
from orlop.trust import Gate, Verifiers
from orlop.upkeep import Adopter, Checker
from orlop.upkeep.service import StoreService

_log = logging.getLogger(__name__)

# The URIs that the built-in shim takes for a container's output.
_LOG_SCHEMES = ("fifo", "binary", "file")


class Servers:
    """Both transports over one table. Listening comes before serving: who calls too early waits."""

    def __init__(self, config: Config, table: ServiceTable, reactor: Reactor) -> None:
        self._config = config
        private = config.grpc.uid < 0 and config.grpc.gid < 0
        counted = bool(config.metrics.address)
        self.calls = {"grpc": Calls(), "ttrpc": Calls()} if counted else {}
        self._grpc = GrpcServer(table, reactor, calls=self.calls.get("grpc"))
        self._ttrpc = TtrpcServer(table, reactor, same_user=private, calls=self.calls.get("ttrpc"))
        self._mode = 0o600 if private else 0o660

    def listen(self) -> None:
        """Take both sockets; FailedPrecondition when another server has one."""
        self._grpc.add_unix(Path(self._config.address), self._mode)
        self._ttrpc.add_unix(Path(self._config.ttrpc_address), self._mode)

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
    root = Path(config.root)
    here = platform.host()
    spans = tracing.start(config.tracing, closing)
    reactor = Reactor()
    closing.callback(reactor.close)
    exchange = Exchange()
    database = Database(root / "metadata.db")
    closing.callback(database.close)

    content = ContentStore(
        database,
        root / "content",
        exchange,
        shared=config.content.sharing == "shared",
        protection=Protection(wanted=config.content.verity),
    )
    content.reap()
    snapshotters, broken, proxies = shelves.make(config, database, exchange, forks, closing)
    everywhere: dict[str, Snapshotter] = {**snapshotters, **proxies}
    if config.snapshots.default not in everywhere:
        raise FailedPrecondition(f'the default snapshotter "{config.snapshots.default}" is missing')
    namespaces = NamespaceStore(database, exchange, content.remove_orphan_ingest)
    containers = ContainerStore(database, exchange)
    limits = Limits(config.diff.max_size, config.diff.max_entries, config.diff.max_ratio)
    processors = Processors(
        {
            name: Processor(name, each.accepts, each.returns, each.path, each.args, each.env)
            for name, each in config.stream_processors.items()
        }
    )
    applier = Applier(content, forks, limits, processors)
    images = ImageStore(database, exchange)
    leases = LeaseStore(database)
    unpacking = Unpacking(everywhere, leases, applier, forks)
    settings = config.image_verifier
    verifiers = Verifiers(
        Path(settings.bin_dir), settings.max_verifiers, settings.per_verifier_timeout
    )
    gate = Gate(Path(config.trust.policy), verifiers)
    puller = Puller(content, images, leases, unpacking, gate)
    pusher = Pusher(content, images, leases)
    importer = Importer(content, images, leases, unpacking, max_ratio=limits.max_ratio)
    exporter = Exporter(content, images, leases)
    streams = Streams()
    resolver = Resolver(streams, config.registry.folders)
    shims = _shims(config, forks, reactor)
    sandboxes = SandboxManager(
        Bundles(Path(config.state), root, SANDBOXES), shims, exchange, reactor
    )
    closing.callback(sandboxes.close)
    kernel = Kernel(forks)
    closing.callback(kernel.close)
    problem = _no_networks()
    networks = _networks(config, database, kernel, exchange, forks, containers)
    closing.callback(networks.names.close)
    loopback = Loopback(forks)
    closing.callback(loopback.close)
    host_ports = HostPorts(loopback, networks.address_of)
    closing.callback(host_ports.close)
    cni = _cni(config, exchange)
    closing.callback(cni.close)
    connections = Connections(networks, kernel, host_ports, exchange, cni)
    bundles = Bundles(Path(config.state), root)
    checkpoints = Checkpoints(containers, FolderStore(content, forks))
    moves = CgroupMoves(own_procs)
    closing.callback(moves.close)
    mounts = MountManager(
        MountStore(database), Path(config.state) / "mounts", (root, Path(config.state))
    )
    mounts.reap()
    tasks = TaskManager(
        bundles,
        shims,
        containers,
        exchange,
        reactor,
        checkpoints,
        moves,
        mounts,
        sandboxes.bundle,
        Planner(connections, unusable=problem),
    )
    closing.callback(tasks.close)

    pins = PinnedNamespaces(Path(config.state) / "netns", kernel)
    named = NamedNamespaces(pins, database, exchange)
    named.reap()
    shelved: dict[str, Shelf] = {**snapshotters, **proxies}
    sweeps: dict[str, Sweep] = {
        "content": content.collect,
        "ingest": content.collect_ingests,
        "image": images.collect,
        "lease": leases.collect,
        "mount": mounts.collect,
        "network": networks.collect,
        "netns": named.collect,
        **{f"snapshot/{name}": store.collect for name, store in shelved.items()},
    }
    garbage = Scheduler(Collector(database, sweeps), Thresholds(**asdict(config.gc)))
    closing.callback(garbage.close)
    database.on_write = garbage.touch
    hosts = HostsFiles(tasks.bundles.folder, connections, networks.names.names_of)
    watch = NetworkWatch(exchange, networks, connections, hosts, named, tasks.pid_of)
    closing.callback(watch.close)
    parts: list[Plugin] = [
        plugins.content(root / "content"),
        *(
            plugins.proxy_snapshotter(name, each.address, here, each.exports, each.capabilities)
            for name, each in config.proxy_plugins.items()
        ),
        *(
            plugins.snapshotter(
                name,
                root / "snapshots" / name,
                here,
                capabilities=store.capabilities,
            )
            for name, store in snapshotters.items()
        ),
        *(
            plugins.snapshotter(name, root / "snapshots" / name, here, error=error)
            for name, error in broken.items()
        ),
        plugins.metadata(root / "metadata.db", config.content.sharing),
        plugins.mounts(Path(config.state) / "mounts"),
        plugins.differ(here),
        plugins.task_runtime(
            here,
            _LOG_SCHEMES,
            bundles=bundles.folder,
            shared=shims.own_runtimes,
            snapshotter=config.snapshots.default,
        ),
        plugins.sandbox_store(),
        plugins.sandbox_controller(),
        plugins.gc(),
        plugins.restart(POLICIES),
        plugins.logs(root / "logs"),
        plugins.network(
            "none" if problem and config.network.default == "bridge" else config.network.default,
            pins.folder,
            FailedPrecondition(problem) if problem else None,
        ),
    ]
    state = Path(config.state)
    prober, files = Prober(tasks, state / "health-fifo"), StateFiles(state / "health")
    health = HealthMonitor(exchange, namespaces, containers, tasks, prober, files)
    table = ServiceTable(
        HealthService(),
        VersionService(),
        IntrospectionService(Catalogue(parts), identity.load(root)),
        NamespacesService(namespaces),
        ContentService(content),
        ImagesService(images, garbage.collect),
        ContainersService(containers),
        SnapshotsService(everywhere, config.snapshots.default),
        MountsService(mounts),
        DiffService(applier, Comparer(content, forks)),
        TasksService(tasks),
        ContainerHealthService(health),
        SandboxStoreService(SandboxStore(database)),
        SandboxControllerService(sandboxes),
        LeasesService(leases, garbage.collect),
        NetworksService(networks, connections, kernel, tasks.pid_of),
        NetworkNamespacesService(named, kernel, tasks.pid_of),
        LinksService(kernel, pins, tasks.pid_of, forks),
        EventsService(exchange),
        TtrpcEventsService(ExitWatch(tasks, exchange)),
        StreamingService(streams),
        StoreService(
            root,
            forks,
            Checker(root, forks, database, content, snapshotters, resolver),
            Adopter(forks, content, images, leases, namespaces),
        ),
        TransferService(
            puller, pusher, importer, exporter, images, streams, resolver, config.snapshots.default
        ),
    )
    servers = Servers(config, table, reactor)
    closing.callback(servers.stop)
    guests = None
    if config.snapshots.serve:
        service = GuestSnapshotsService(everywhere, config.snapshots.default)
        guests = GrpcServer(ServiceTable(service), reactor)
        closing.callback(guests.stop, grace=0.2)
    remover = AutoRemover(exchange, namespaces, containers, tasks, everywhere, root / "logs")
    closing.callback(remover.close)
    recorder = OomRecorder(exchange, containers, tasks)
    closing.callback(recorder.close)
    closing.callback(health.close)
    reviver = Reviver(tasks, everywhere)
    monitor = Monitor(exchange, namespaces, containers, reviver, config.restart.interval)
    closing.callback(monitor.close)
    origin = None
    if config.serve.address:
        origin = registry.start(config.serve, content, images, leases, closing)
    scraped = metrics.listen(config, closing) if config.metrics.address else None
    shown = status.listen(config, closing) if config.status.address else None
    # The first things to be done, or all that wait for shims and plugins wait on.
    closing.callback(tasks.stop)
    closing.callback(cni.stop)
    servers.listen()
    if guests is not None:
        guests.add_unix(Path(config.snapshots.serve), 0o600)
    # Shims that are found again send what they have kept; they wait until it is read.
    sandboxes.recover()
    recover(tasks, reactor)
    watch.start()
    remover.start()
    recorder.start()
    monitor.start()
    health.start()
    garbage.start()
    servers.serve()
    if guests is not None:
        guests.start()
    if origin is not None:
        origin.start()
        _log.info('serving images of "%s" as registry "%s"', config.serve.namespace, origin.address)
    if scraped is not None:
        from orlop.daemon.readings import Rooms  # noqa: PLC0415 - brings Prometheus's library

        rooms = Rooms(
            servers=servers.counted(),
            forks=forks,
            exchange=exchange,
            database=database,
            content=content,
            puller=puller,
            unpacking=unpacking,
            resolver=resolver,
            tasks=tasks,
            garbage=garbage,
            spans=spans,
        )
        metrics.start(scraped, config, rooms, containers, snapshotters, closing)
        _log.info('serving metrics on "%s"', scraped.address)
    if shown is not None:
        status.start(
            shown,
            config,
            forks,
            tasks,
            containers,
            namespaces,
            images,
            content,
            puller,
            exchange,
        )
        _log.info('serving the status page on "%s"', shown.address)


def _networks(
    config: Config,
    database: Database,
    kernel: Kernel,
    exchange: Exchange,
    forks: ForkServer,
    containers: ContainerStore,
) -> Networks:
    wanted = config.network
    store = NetworkStore(
        database,
        wanted.bridge,
        Pools(wanted.pool, wanted.pool_prefix, wanted.pool6, wanted.pool6_prefix),
    )
    names = NameServer(forks, Path(config.state) / "dns.sock", store, containers.get)
    backends: dict[str, Backend] = {
        "nftables": Nftables(kernel, wanted.bridge),
        "iptables": Iptables(kernel, wanted.bridge),
    }
    firewall = Firewall(backends, wanted.firewall, Path(config.state) / "firewall")
    return Networks(store, kernel, exchange, names, firewall, f"orlop of {config.root}")


def _cni(config: Config, exchange: Exchange) -> CniNetworks:
    wanted = config.network
    return CniNetworks(
        Cni(
            Plugins(
                wanted.cni_folders,
                timeout=wanted.cni_timeout,
                lock=Path(config.state) / "cni-plugins.lock",
            ),
            Results(Path(config.root) / "cni"),
        ),
        Configurations(Path(wanted.cni_config)),
        Path(config.state) / "cni",
        exchange,
        others=Results(CACHE),
    )


def _no_networks() -> str:
    """Why this daemon can make no networks; "" if it can."""
    if in_user_namespace():
        return "the daemon is root in a user namespace only"
    if CAP_NET_ADMIN not in bounding_capabilities():
        return "the daemon lacks CAP_NET_ADMIN"
    return ""


def _shims(config: Config, forks: ForkServer, reactor: Reactor) -> Shims:
    state, debug = Path(config.state), config.log.level == "debug"
    own = ForkedShims(forks, state / "s", config.ttrpc_address, debug=debug)
    return Shims(
        reactor,
        own,
        lambda path: BinaryShims(path, config.address, API_VERSION, debug=debug),
        config.runtimes,
    )
