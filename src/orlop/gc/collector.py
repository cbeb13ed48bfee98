"""One collection: read what may be garbage, prove it, have the rooms remove it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orlop.errors import OrlopError
from orlop.gc.expiry import EXPIRE, moment
from orlop.gc.graph import Graph, Node
from orlop.metadata import Database, Transaction
from orlop.metadata.sweeping import Dead, Key, Sweep

# So many names are looked at in one transaction: a write of a client waits for no more.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Collection:
    """What came of a collection: seconds, and how many records of each kind have gone."""

    seconds: float
    removed: Mapping[str, int] = field(default_factory=dict)


class _Batch(NamedTuple):
    names: set[Key]
    last: int
    dead: Mapping[str, Sequence[Key]]


class Collector:
    """Collects among the records of all namespaces.

    `sweepers` remove what is dead: "content", "image", "ingest", "lease", "mount", "network",
    "netns" and "snapshot/" with the name of each snapshotter. Records of other kinds stay.
    """

    def __init__(
        self,
        database: Database,
        sweepers: Mapping[str, Sweep],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._sweepers = sweepers
        self._now = now
        self._checked = 0.0

    def waiting(self) -> tuple[int, int]:
        """How many names are to be looked at, and how many of them have lost a keeper."""
        with self._database.read() as tx:
            row = tx.one("SELECT count(*), ifnull(sum(lost), 0) FROM gc_log")
        assert row is not None
        return row[0], row[1]

    def next_expiry(self) -> float | None:
        """When the next lease, image or ingest ends, in Unix seconds.

        What had ended when the last collection looked, and is kept all the same, counts no more.
        """
        with self._database.read() as tx:
            ends = [end for _, end in _expiring(tx) if end >= self._checked]
        return min(ends, default=None)

    def run(self, stop: Callable[[], bool] = lambda: False) -> Collection:
        """Remove all garbage, also that which only this makes garbage; no more once `stop` says.

        What cannot be removed is noted again for the next one, and the first failure is raised.
        """
        checked, self._checked = self._checked, self._now()
        try:
            return self._run(stop)
        except BaseException:
            self._checked = checked  # what has ended may still be there
            raise

    def _run(self, stop: Callable[[], bool]) -> Collection:
        begin = time.monotonic()
        removed: Counter[str] = Counter()
        ended = self._ended(self._checked)
        leases = [(node.namespace, node.name) for node in ended if node.kind == "lease"]
        failures: list[Exception] = []
        self._sweep({"lease": leases}, removed, failures, stop)
        others = [(node.namespace, node.name) for node in ended if node.kind != "lease"]
        stuck: set[Key] = set()
        while not stop() and (batch := self._look(others)) is not None:
            others = []
            if batch.names and batch.names <= stuck:
                break
            left = self._sweep(batch.dead, removed, failures, stop)
            with self._database.write() as tx:
                tx.execute("DELETE FROM gc_log WHERE position <= ?", (batch.last,))
                tx.executemany("INSERT INTO gc_log (namespace, name, lost) VALUES (?, ?, 1)", left)
            stuck.update(left)
        if failures:
            raise failures[0]
        return Collection(time.monotonic() - begin, dict(removed))

    def _ended(self, now: float) -> list[Node]:
        with self._database.read() as tx:
            return [node for node, end in _expiring(tx) if end < now]

    def _look(self, others: Iterable[Key]) -> _Batch | None:
        """The oldest names that are noted, and `others`: which of their records are dead.

        None when there are no names.
        """
        with self._database.read() as tx:
            rows = tx.all(
                "SELECT position, namespace, name FROM gc_log ORDER BY position LIMIT ?", (_BATCH,)
            )
            names = deque([*others, *((namespace, name) for _, namespace, name in rows)])
            if not names:
                return None
            graph, seen = Graph(tx, self._now()), set[Key]()
            dead: dict[str, dict[Key, None]] = {}
            while names:
                key = names.popleft()
                if key in seen:
                    continue
                seen.add(key)
                for node in graph.nodes(*key):
                    if node.kind not in self._sweepers:
                        continue
                    if not graph.is_kept(node):
                        dead.setdefault(node.kind, {})[node.namespace, node.name] = None
                    elif not graph.is_kept(node, full=True):
                        # Only flat leases keep it: what it refers to may have lost it.
                        names.extend(graph.references(node))
        noted = {(namespace, name) for _, namespace, name in rows}
        last = rows[-1][0] if rows else 0
        return _Batch(noted, last, {kind: list(keys) for kind, keys in dead.items()})

    def _sweep(
        self,
        dead: Mapping[str, Sequence[Key]],
        removed: Counter[str],
        failures: list[Exception],
        stop: Callable[[], bool],
    ) -> list[Key]:
        """What of it is left, for a failure that must not keep the rest."""
        left: list[Key] = []
        for kind, keys in dead.items():
            for start in range(0, len(keys), _BATCH):
                batch = keys[start : start + _BATCH]
                try:
                    removed[kind] += self._sweepers[kind](batch, self._is_dead(kind))
                except (OrlopError, OSError):
                    left += self._sweep_each(kind, batch, removed, failures, stop)
        return left

    def _sweep_each(
        self,
        kind: str,
        keys: Sequence[Key],
        removed: Counter[str],
        failures: list[Exception],
        stop: Callable[[], bool],
    ) -> list[Key]:
        """The same, of one after the other, to find what it is that cannot be removed."""
        left: list[Key] = []
        for number, key in enumerate(keys):
            if stop():
                return left + list(keys[number:])
            try:
                removed[kind] += self._sweepers[kind]([key], self._is_dead(kind))
            except (OrlopError, OSError) as error:
                failures.append(error)
                left.append(key)
        return left

    def _is_dead(self, kind: str) -> Dead:
        graph: Graph | None = None

        def dead(tx: Transaction, namespace: str, name: str) -> bool:
            nonlocal graph
            if graph is None or graph.tx is not tx:  # what it has found out holds for one
                graph = Graph(tx, self._now())
            return not graph.is_kept(Node(kind, namespace, name))

        return dead


def _expiring(tx: Transaction) -> list[tuple[Node, float]]:
    """What has an end, and when that is."""
    found = [
        (Node("ingest", namespace, ref), end / 10**9)
        for namespace, ref, end in tx.all(
            "SELECT namespace, ref, expires_at FROM ingests WHERE expires_at IS NOT NULL"
        )
    ]
    for kind in ("lease", "image"):
        for namespace, owner, text in tx.all(
            "SELECT namespace, owner, value FROM labels WHERE kind = ? AND key = ?", (kind, EXPIRE)
        ):
            if (end := moment(text)) is not None:
                found.append((Node(kind, namespace, owner), end))
    return found
