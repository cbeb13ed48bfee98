"""Records of activations: by namespace and name, each with a number that names its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from orlop import typed
from orlop.errors import AlreadyExists, NotFound
from orlop.metadata import Database, Transaction, filters, labels
from orlop.metadata.database import Row
from orlop.metadata.references import attach_to_lease, ensure_namespace
from orlop.metadata.sweeping import Dead, Key
from orlop.mounts.model import Activation, Active
from orlop.sys.mount import Mount

_KIND = "mount"
_RESOURCE = "mounts"


class _Made(msgspec.Struct):
    active: list[tuple[Mount, str, int]]
    system: list[Mount]


class Record(NamedTuple):
    """An activation with its number; the mounts of one that is being made are not known yet."""

    number: int
    namespace: str
    name: str
    made: Activation | None


class MountStore:
    """The activations of every namespace."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(
        self,
        namespace: str,
        name: str,
        own_labels: Mapping[str, str],
        lease: str,
        note: Callable[[int], None],
    ) -> int:
        """Take a name, before anything is mounted; its number, which `note` is told first.

        Raises AlreadyExists.
        """
        labels.validate(own_labels)
        with self._db.write() as tx:
            if _exists(tx, namespace, name):
                raise AlreadyExists(f'mount "{name}"')
            ensure_namespace(tx, namespace)
            attach_to_lease(tx, namespace, lease, _RESOURCE, name)
            labels.replace(tx, _KIND, namespace, name, own_labels)
            number = tx.execute(
                "INSERT INTO mounts (namespace, name) VALUES (?, ?)", (namespace, name)
            ).lastrowid
            assert number is not None
            note(number)
        return number

    def finish(self, number: int, made: Activation) -> None:
        """What was made is kept from now on, as long as something refers to it."""
        active = [(each.mount, each.mount_point, each.mounted_at) for each in made.active]
        text = msgspec.json.encode(_Made(active, list(made.system))).decode()
        with self._db.write() as tx:
            tx.execute("UPDATE mounts SET made = ? WHERE id = ?", (text, number))

    def drop(self, record: Record) -> None:
        """Forget one, whatever has become of it."""
        with self._db.write() as tx:
            _remove(tx, record)

    def take_dead(
        self, keys: Iterable[Key], dead: Dead, is_being_made: Callable[[Record], bool]
    ) -> list[Record]:
        """Forget those that nothing keeps, but for what is being made."""
        taken = []
        with self._db.write() as tx:
            for namespace, name in keys:
                if not _exists(tx, namespace, name):
                    continue
                record = _get(tx, namespace, name)
                if not is_being_made(record) and dead(tx, namespace, name):
                    _remove(tx, record)
                    taken.append(record)
        return taken

    def get(self, namespace: str, name: str) -> Record:
        """One activation; raises NotFound."""
        with self._db.read() as tx:
            return _get(tx, namespace, name)

    def everything(self, namespace: str = "") -> list[Record]:
        """All records, or a namespace's."""
        with self._db.read() as tx:
            rows = tx.all(
                "SELECT * FROM mounts WHERE ? IN ('', namespace) ORDER BY namespace, name",
                (namespace,),
            )
            return [_record(tx, row) for row in rows]

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Activation]:
        """Those that were made and that any of the filters match, by name.

        Filters see `name` and `labels`.
        """
        chosen = filters.parse(wanted)
        return [
            record.made
            for record in self.everything(namespace)
            if record.made is not None
            and chosen.matches(filters.record({"name": record.name}, labels=record.made.labels))
        ]


def _exists(tx: Transaction, namespace: str, name: str) -> bool:
    key = (namespace, name)
    return tx.one("SELECT 1 FROM mounts WHERE namespace = ? AND name = ?", key) is not None


def _get(tx: Transaction, namespace: str, name: str) -> Record:
    row = tx.one("SELECT * FROM mounts WHERE namespace = ? AND name = ?", (namespace, name))
    if row is None:
        raise NotFound(f'mount "{name}"')
    return _record(tx, row)


def _record(tx: Transaction, row: Row) -> Record:
    namespace, name, text = row["namespace"], row["name"], row["made"]
    if text is None:
        return Record(row["id"], namespace, name, None)
    made = typed.decode(text, _Made)
    active = tuple(Active(*each) for each in made.active)
    pairs = labels.get(tx, _KIND, namespace, name)
    activation = Activation(name, active, tuple(made.system), pairs)
    return Record(row["id"], namespace, name, activation)


def _remove(tx: Transaction, record: Record) -> None:
    if not tx.execute("DELETE FROM mounts WHERE id = ?", (record.number,)).rowcount:
        return  # somebody else was faster, and there may be another one of its name
    labels.remove(tx, _KIND, record.namespace, record.name)
    tx.execute(
        "DELETE FROM lease_resources WHERE namespace = ? AND type = ? AND id = ?",
        (record.namespace, _RESOURCE, record.name),
    )
