"""Names of snapshots with another service: rows of a table, and their removal there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from orlop.errors import FailedPrecondition, NotFound, OrlopError, Unavailable
from orlop.metadata import Database, Transaction
from orlop.snapshots.remote import RemoteSnapshotter

_log = logging.getLogger(__name__)

# Seconds until what could not be removed is tried again, at first and at most.
_AGAIN, _AGAIN_MAX = 1.0, 60.0


def announce(tx: Transaction, snapshotter: str, namespace: str, name: str) -> bool:
    """Something may come to have the name; False for one that something may have already."""
    done = tx.execute(
        "INSERT INTO proxied_snapshots (snapshotter, namespace, name) VALUES (?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (snapshotter, namespace, name),
    )
    return done.rowcount > 0


def withdraw(tx: Transaction, snapshotter: str, namespace: str, name: str) -> None:
    """Nothing has the name, unless a snapshot has come to."""
    tx.execute(
        "DELETE FROM proxied_snapshots WHERE snapshotter = ? AND namespace = ?"
        " AND name = ? AND snapshot IS NULL",
        (snapshotter, namespace, name),
    )


def own(tx: Transaction, snapshotter: str, namespace: str, name: str, number: int) -> None:
    """From now on the name is that of the snapshot `number`."""
    tx.execute(
        "INSERT INTO proxied_snapshots (snapshotter, namespace, name, snapshot)"
        " VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET snapshot = excluded.snapshot",
        (snapshotter, namespace, name, number),
    )


def forget(tx: Transaction, snapshotter: str, namespace: str, name: str) -> None:
    """Nothing has the name any more."""
    tx.execute(
        "DELETE FROM proxied_snapshots WHERE snapshotter = ? AND namespace = ? AND name = ?",
        (snapshotter, namespace, name),
    )


def name_of(tx: Transaction, number: int) -> str | None:
    row = tx.one("SELECT name FROM proxied_snapshots WHERE snapshot = ?", (number,))
    return str(row["name"]) if row else None


def namespaces(tx: Transaction, snapshotter: str) -> list[str]:
    rows = tx.all(
        "SELECT DISTINCT namespace FROM proxied_snapshots WHERE snapshotter = ?", (snapshotter,)
    )
    return [row["namespace"] for row in rows]


def numbers(tx: Transaction) -> Iterable[int]:
    """The numbers in names of ours that are taken."""
    for row in tx.all("SELECT name FROM proxied_snapshots"):
        _, _, rest = row["name"].partition("/")
        number, _, _ = rest.partition("/")
        if number.isdecimal():
            yield int(number)


class Doomed:
    """Removes, in a thread, what has lost its record; again later where the service refuses.

    The owner calls `close`.
    """

    def __init__(self, database: Database, remote: RemoteSnapshotter) -> None:
        self._database = database
        self._remote = remote
        self._spared: list[str] = []  # by each of those who do
        self._removing = ""
        self._changed = threading.Condition()
        self._due, self._closed = True, False
        self._told: set[str] = set()  # names that it does not work for, "" for all
        self._thread = threading.Thread(
            target=self._run, name=f"snapshots-{remote.name}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def spare(self, name: str) -> None:
        """A name whose snapshot is being made, once it is not being removed any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._removing != name)
            self._spared.append(name)

    def release(self, name: str) -> None:
        with self._changed:
            self._spared.remove(name)
        self.wake()

    def wake(self) -> None:
        with self._changed:
            self._due = True
            self._changed.notify_all()

    def _run(self) -> None:
        pause = _AGAIN
        left = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._closed, pause if left else None)
                if self._closed:
                    return
                pause = _AGAIN if self._due else min(2 * pause, _AGAIN_MAX)
                self._due = False
            left = self._remove_all()

    def _remove_all(self) -> bool:
        """Remove children before their parents, in as many rounds as it takes; is some left?"""
        try:
            while True:
                waiting, gone = self.waiting(), 0
                for namespace, name in waiting:
                    if self._closed:
                        return False
                    gone += self._remove_unless_spared(namespace, name)
                if not gone or gone == len(waiting):
                    return gone != len(waiting)
        except OrlopError as error:
            self._tell("", error)
            return True

    def _tell(self, name: str, error: OrlopError) -> None:
        level = logging.DEBUG if name in self._told else logging.WARNING
        what = f'"{name}"' if name else "what has lost its record"
        _log.log(
            level,
            "snapshotter=%s cannot remove %s, and tries on: %s",
            self._remote.name,
            what,
            error,
        )
        self._told.add(name)

    def waiting(self) -> list[tuple[str, str]]:
        """Namespaces and names of what is to be removed."""
        with self._database.read() as tx:
            rows = tx.all(
                "SELECT namespace, name FROM proxied_snapshots"
                " WHERE snapshotter = ? AND snapshot IS NULL",
                (self._remote.name,),
            )
        with self._changed:
            return [
                (row["namespace"], row["name"]) for row in rows if row["name"] not in self._spared
            ]

    def _remove_unless_spared(self, namespace: str, name: str) -> bool:
        with self._changed:
            if name in self._spared:
                return False
            self._removing = name
        try:
            return self._remove(namespace, name)
        finally:
            with self._changed:
                self._removing = ""
                self._changed.notify_all()

    def _remove(self, namespace: str, name: str) -> bool:
        """False for one that has children yet, or that the service refuses to remove."""
        if not self._is_shared(name):
            try:
                self._remote.remove(namespace, name)
            except NotFound:
                pass
            except FailedPrecondition:
                return False
            except Unavailable:
                raise
            except OrlopError as error:
                self._tell(name, error)
                return False
            self._told -= {name, ""}
        with self._database.write() as tx:
            withdraw(tx, self._remote.name, namespace, name)
        return True

    def _is_shared(self, name: str) -> bool:
        """Whether a snapshot of another namespace has the name: the service has one for both."""
        with self._database.read() as tx:
            row = tx.one(
                "SELECT 1 FROM proxied_snapshots"
                " WHERE snapshotter = ? AND name = ? AND snapshot IS NOT NULL",
                (self._remote.name, name),
            )
        return row is not None
