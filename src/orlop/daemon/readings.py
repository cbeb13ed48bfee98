"""Which of the rooms' counts are metrics, and what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from orlop import __version__, tally
from orlop.daemon.rooms import Rooms
from orlop.introspection.service import REVISION, VERSION
from orlop.metrics.internals import Reading
from orlop.rpc.calls import Calls
from orlop.rpc.serving import SocketServer
from orlop.runtime import TaskManager


def readings(
    rooms: Rooms, servers: Mapping[str, tuple[SocketServer, Calls]], spans: tally.Counter
) -> Iterator[Reading]:
    """The metrics of a daemon, but for those of its containers and of scrapes."""
    yield Reading(
        "orlop_build_info", "1, with the version", lambda: {(__version__,): 1}, ("version",)
    )
    yield Reading(
        "containerd_build_info_total",
        "1, with the version that clients of containerd are told",
        lambda: {(VERSION, REVISION): 1},
        ("version", "revision"),
    )
    for transport, (_, calls) in servers.items():
        yield from _calls(transport, calls)
    yield from _servers({name: server for name, (server, _) in servers.items()})
    yield from _news(rooms, spans)
    yield from _work(rooms)
    yield from _stores(rooms)
    yield from _tasks(rooms.execution.tasks)
    yield Reading(
        "orlop_restart_looks_total",
        'Looks at containers with labels to restart them: on a "round", or after an "exit"',
        rooms.watchers.restarts.looks,
    )


def _calls(transport: str, calls: Calls) -> Iterator[Reading]:
    """As go-grpc-prometheus calls them; those of ttrpc likewise."""
    labels = (f"{transport}_type", f"{transport}_service", f"{transport}_method")
    start = f"{transport}_server"
    yield Reading(f"{start}_started_total", "Calls begun", calls.started, labels)
    handled = (*labels, f"{transport}_code")
    yield Reading(f"{start}_handled_total", "Calls ended, by code", calls.handled, handled)
    yield Reading(f"{start}_msg_received_total", "Messages of clients", calls.received, labels)
    yield Reading(f"{start}_msg_sent_total", "Messages to clients", calls.sent, labels)
    yield Reading(f"{start}_handling_seconds", "How long calls took", calls, labels)


def _servers(servers: Mapping[str, SocketServer]) -> Iterator[Reading]:
    yield Reading(
        "orlop_rpc_threads",
        "Threads that serve calls, or wait for some",
        lambda: {(name,): server.threads for name, server in servers.items()},
        ("transport",),
    )
    yield Reading(
        "orlop_rpc_waiting_calls",
        "Calls that wait for a thread",
        lambda: {(name,): server.waiting for name, server in servers.items()},
        ("transport",),
    )


def _news(rooms: Rooms, spans: tally.Counter) -> Iterator[Reading]:
    exchange = rooms.ground.exchange
    yield Reading(
        "orlop_events_published_total",
        "Events by topic: what was made, changed and removed in every room",
        exchange.published,
    )
    yield Reading(
        "orlop_events_dropped_subscribers_total",
        "Subscribers that fell too far behind and were ended",
        exchange.dropped,
    )
    yield Reading("orlop_events_subscribers", "Subscribers", lambda: len(exchange.backlogs()))
    yield Reading(
        "orlop_events_backlog",
        "Events that the slowest subscriber has not read yet",
        lambda: max(exchange.backlogs(), default=0),
    )
    yield Reading(
        "orlop_trace_spans_total",
        "Spans by what came of them: exported, failed, or dropped since too many waited",
        spans,
    )
    yield Reading(
        "orlop_database_seconds",
        "Time of transactions by kind: read, write, and wait for another's write",
        rooms.ground.database.transactions,
    )


def _work(rooms: Rooms) -> Iterator[Reading]:
    forks, transfers = rooms.ground.forks, rooms.transfers
    yield Reading(
        "orlop_fork_seconds",
        "Time until the fork server had forked a shim or a worker, by name",
        forks.forks,
    )
    yield Reading("orlop_fork_failures_total", "Forks that failed, by name", forks.failures)
    yield Reading(
        "orlop_workers",
        "Workers that are at work, by name: what is heavy is done by processes of their own",
        forks.workers,
    )
    yield Reading("orlop_pull_seconds", "Time of pulls by outcome", transfers.puller.pulls)
    yield Reading(
        "orlop_pull_fetched_bytes_total", "Bytes fetched by pulls", transfers.puller.fetched
    )
    yield Reading(
        "orlop_layer_seconds",
        "Time until a pull or an import had a layer, fetched and unpacked, by outcome",
        transfers.unpacking.layers,
    )
    yield Reading(
        "orlop_registry_requests_total",
        'Requests to registries by host and status; "error" where there was no answer',
        transfers.resolver.requests,
    )


def _stores(rooms: Rooms) -> Iterator[Reading]:
    garbage, content, shelves = rooms.watchers.garbage, rooms.storage.content, rooms.storage.shelves
    yield Reading(
        "containerd_gc_collections_total",
        "Collections of garbage by what came of them",
        garbage.collections,
    )
    yield Reading(
        "containerd_gc_gc_seconds",
        "Time that collections of garbage took",
        garbage.seconds,
    )
    yield Reading(
        "orlop_gc_removed_total",
        "Records that were garbage, by kind",
        garbage.removed,
    )

    def names() -> dict[tuple[str, ...], float]:
        waiting, lost = garbage.waiting()
        return {("new",): waiting - lost, ("lost",): lost}

    yield Reading(
        "orlop_gc_waiting",
        'Names that the next collection looks at: "new" ones, and those that "lost" a keeper',
        names,
        ("reason",),
    )
    yield Reading(
        "orlop_content_committed_bytes_total",
        "Bytes of blobs that came into the content store",
        content.committed,
    )
    yield Reading(
        "orlop_content_seconds",
        "Time to commit and to delete blobs, also those of pulls and collections",
        content.operations,
    )
    yield Reading(
        "orlop_snapshot_seconds",
        "Time of operations on snapshots, also those of pulls, imports and runs",
        tally.Together("snapshotter", {n: each.operations for n, each in shelves.items()}),
    )
    yield Reading(
        "orlop_snapshots_undeleted",
        "Snapshots that are gone and wait to be deleted, or for who has them to remove them",
        lambda: {(name,): each.undeleted() for name, each in shelves.items()},
        ("snapshotter",),
    )


def _tasks(tasks: TaskManager) -> Iterator[Reading]:
    yield Reading("orlop_shims", "Shims in use that answer", lambda: tasks.shims.alive)

    def by_namespace() -> dict[tuple[str, ...], float]:
        found = Counter(task.namespace for task in tasks.everything())
        return {(namespace,): count for namespace, count in found.items()}

    yield Reading("orlop_tasks", "Tasks by namespace", by_namespace, ("namespace",))
