"""The rooms that act by themselves: on events, and now and then."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from orlop.daemon.autoremove import AutoRemover
from orlop.daemon.oom import OomRecorder
from orlop.daemon.rooms.execution import Execution
from orlop.daemon.rooms.ground import Ground
from orlop.daemon.rooms.networking import Networking
from orlop.daemon.rooms.storage import Storage
from orlop.gc import Collector, Scheduler, Thresholds
from orlop.health import Monitor as HealthMonitor
from orlop.health import Prober, StateFiles
from orlop.metadata.sweeping import Sweep
from orlop.network.hosts_files import HostsFiles
from orlop.network.watch import NetworkWatch
from orlop.restart import Monitor, Reviver


@dataclass(frozen=True, slots=True)
class Watchers:
    """They hear events from the moment they are made, so they are made before shims are found."""

    garbage: Scheduler
    network: NetworkWatch
    remover: AutoRemover
    recorder: OomRecorder
    restarts: Monitor
    health: HealthMonitor

    def start(self) -> None:
        """Before clients are served: what does not run then is not just being made."""
        self.network.start()
        self.remover.start()
        self.recorder.start()
        self.restarts.start()
        self.health.start()
        self.garbage.start()

    def stop(self) -> None:
        """The daemon is ending: what would be broken off is not begun any more."""
        self.restarts.stop()
        self.remover.stop()


def make(
    ground: Ground, storage: Storage, networking: Networking, execution: Execution
) -> Watchers:
    exchange, tasks = ground.exchange, execution.tasks
    namespaces, containers = storage.namespaces, storage.containers
    networks, connections = networking.networks, networking.connections
    hosts = HostsFiles(tasks.bundles.folder, connections, networks.names.names_of)
    prober = Prober(tasks, ground.state / "health-fifo")
    files = StateFiles(ground.state / "health")
    everywhere, interval = storage.everywhere, ground.config.restart.interval
    made = Watchers(
        garbage=_garbage(ground, storage, networking),
        network=NetworkWatch(
            exchange,
            networks,
            connections,
            networking.resuming,
            execution.own_files,
            hosts,
            networking.named,
            tasks.pid_of,
        ),
        remover=AutoRemover(
            exchange,
            namespaces,
            containers,
            tasks,
            everywhere,
            ground.root / "logs",
            ground.reactor,
        ),
        recorder=OomRecorder(exchange, containers, tasks),
        restarts=Monitor(exchange, namespaces, containers, Reviver(tasks, everywhere), interval),
        health=HealthMonitor(exchange, namespaces, containers, tasks, prober, files),
    )
    parts = (
        made.garbage, made.network, made.remover, made.recorder, made.health, made.restarts,
    )  # fmt: skip
    for part in parts:  # the last one is closed first
        ground.closing.callback(part.close)
    return made


def _garbage(ground: Ground, storage: Storage, networking: Networking) -> Scheduler:
    sweeps: dict[str, Sweep] = {
        "content": storage.content.collect,
        "ingest": storage.content.collect_ingests,
        "image": storage.images.collect,
        "lease": storage.leases.collect,
        "mount": storage.mounts.collect,
        "network": networking.networks.collect,
        "netns": networking.named.collect,
        **{f"snapshot/{name}": store.collect for name, store in storage.shelves.items()},
    }
    collector = Collector(ground.database, sweeps)
    scheduler = Scheduler(collector, Thresholds(**asdict(ground.config.gc)))
    ground.database.on_write = scheduler.touch
    return scheduler
