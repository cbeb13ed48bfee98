"""Sandbox records. Nobody announces changes of them: what runs is the controllers' to tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import AlreadyExists, InvalidArgument
from orlop.metadata import Database, clock, fieldmask, filters, labels
from orlop.metadata.filters import Lookup
from orlop.metadata.references import ensure_namespace
from orlop.rpc.context import validate_identifier
from orlop.sandboxes import rows
from orlop.sandboxes.model import Sandbox

_MUTABLE = ("labels", "extensions", "spec", "runtime")


class SandboxStore:
    """The sandboxes of every namespace."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, namespace: str, id: str) -> Sandbox:
        """One sandbox; raises NotFound."""
        with self._db.read() as tx:
            return rows.get(tx, namespace, id)

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Sandbox]:
        """The sandboxes that any of the filters `wanted` match, by id.

        Filters see `id`, `runtime.name`, `sandboxer` and `labels`.
        """
        chosen = filters.parse(wanted)
        with self._db.read() as tx:
            found = rows.get_all(tx, namespace)
        return [sandbox for sandbox in found if chosen.matches(_lookup(sandbox))]

    def create(self, namespace: str, sandbox: Sandbox) -> Sandbox:
        """Add a sandbox and return it with its times set.

        Raises AlreadyExists, and InvalidArgument for a bad id or label, or without a runtime.
        """
        _validate(sandbox)
        now = clock.now()
        sandbox = replace(
            sandbox,
            labels={key: value for key, value in sandbox.labels.items() if value},
            created_at=now,
            updated_at=now,
        )
        with self._db.write() as tx:
            if rows.exists(tx, namespace, sandbox.id):
                raise AlreadyExists(f'sandbox "{sandbox.id}"')
            ensure_namespace(tx, namespace)
            rows.write(tx, namespace, sandbox)
        return sandbox

    def update(self, namespace: str, sandbox: Sandbox, fields: Sequence[str] = ()) -> Sandbox:
        """Replace what `fields` names: labels, extensions, spec and runtime, all of them if empty.

        `labels.<key>` and `extensions.<key>` are single entries. Raises NotFound and
        InvalidArgument.
        """
        mask = fieldmask.paths(
            FieldMask(paths=fields), fields=_MUTABLE, maps=("labels", "extensions")
        )
        with self._db.write() as tx:
            old = rows.get(tx, namespace, sandbox.id)
            runs = sandbox if mask.has("runtime") else old
            extensions = mask.merge("extensions", old.extensions, sandbox.extensions)
            updated = replace(
                old,
                labels=mask.merge("labels", old.labels, sandbox.labels),
                extensions=extensions,
                spec=sandbox.spec if mask.has("spec") else old.spec,
                runtime=runs.runtime,
                runtime_options=runs.runtime_options,
                updated_at=clock.now(),
            )
            _validate(updated)
            rows.write(tx, namespace, updated)
        return updated

    def delete(self, namespace: str, id: str) -> None:
        """Remove the record, nothing else; raises NotFound."""
        with self._db.write() as tx:
            rows.delete(tx, namespace, id)


def _validate(sandbox: Sandbox) -> None:
    validate_identifier("sandbox", sandbox.id)
    labels.validate(sandbox.labels)
    if "" in sandbox.extensions:
        raise InvalidArgument(f'sandbox "{sandbox.id}" has an extension without a name')
    if not sandbox.runtime:
        raise InvalidArgument(f'sandbox "{sandbox.id}" has no runtime name')


def _lookup(sandbox: Sandbox) -> Lookup:
    fields = {
        "id": sandbox.id,
        "runtime.name": sandbox.runtime,
        "sandboxer": sandbox.sandboxer,
    }
    return filters.record(fields, labels=sandbox.labels)
