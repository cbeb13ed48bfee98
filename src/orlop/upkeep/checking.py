"""A check of a daemon's store, and what it can do about what is found."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from orlop import typed
from orlop.content import ContentStore
from orlop.errors import (
    AlreadyExists,
    Cancelled,
    DataLoss,
    FailedPrecondition,
    NotFound,
    OrlopError,
    Unavailable,
)
from orlop.fork.worker import Spawner, Worker
from orlop.metadata import Database, labels
from orlop.metadata.references import detach_from_lease
from orlop.rpc import CallContext
from orlop.snapshots import Kind, SnapshotStore
from orlop.transfer.resolver import Resolver
from orlop.upkeep import findings, rows
from orlop.upkeep.findings import Finding, Outcome
from orlop.upkeep.inspection import Summary, Tell
from orlop.upkeep.reading import Advance
from orlop.upkeep.refetching import Access, Refetcher

_JOB = "orlop.upkeep.inspection:job"
_REFETCHED = {findings.DAMAGED_BLOB, findings.LOST_BLOB}
# That nobody has it; whoever cannot be asked, or where to put it, may do better another time.
_NOT_TO_BE_HAD = (NotFound, DataLoss)

_log = logging.getLogger(__name__)


class Wish(NamedTuple):
    """What a check is to do: read no blobs; repair; give up what cannot be repaired."""

    quick: bool = False
    repair: bool = False
    drop: bool = False
    access: Access = Access()


class Checker:
    """Checks the store below `root`, whose database and rooms these are."""

    def __init__(
        self,
        root: Path,
        forks: Spawner,
        database: Database,
        content: ContentStore,
        snapshotters: Mapping[str, SnapshotStore],
        resolver: Resolver,
    ) -> None:
        self._root = root
        self._forks = forks
        self._database = database
        self._content = content
        self._snapshotters = snapshotters
        self._refetcher = Refetcher(database, content, resolver)
        self._repairing = threading.Lock()

    def run(self, wish: Wish, ctx: CallContext, tell: Tell, advance: Advance) -> Summary:
        """Tell of each finding once it has been dealt with; what was looked at.

        Raises Cancelled, and Unavailable while another check repairs.
        """
        if not wish.repair:
            return self._inspect(wish, ctx, tell, advance)
        with self._alone():
            found: list[Finding] = []
            summary = self._inspect(wish, ctx, found.append, advance)
            for finding in found:
                tell(self._mended(finding, wish, ctx))
        return summary

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._repairing.acquire(blocking=False):
            raise Unavailable("another check repairs the store")
        try:
            yield
        finally:
            self._repairing.release()

    def _inspect(self, wish: Wish, ctx: CallContext, tell: Tell, advance: Advance) -> Summary:
        def hear(message: dict[str, Any]) -> None:
            if "finding" in message:
                tell(typed.convert(message["finding"], Finding))
            else:
                advance(*message["bytes"])

        args = {"root": str(self._root), "quick": wish.quick}
        with Worker(self._forks, _JOB, args, name="orlop-check") as worker:
            ctx.on_cancel(worker.cancel)
            try:
                summary = typed.convert(worker.result(hear), Summary)
            finally:
                ctx.check()
        for finding in self._stuck():
            tell(finding)
        return summary

    def _stuck(self) -> Iterator[Finding]:
        """What the daemon could not delete."""
        for name, store in self._snapshotters.items():
            for path, why in store.stuck().items():
                yield Finding(
                    kind=findings.STUCK_SNAPSHOT,
                    name=path.name,
                    path=str(path),
                    store=name,
                    problem=f"it cannot be deleted: {why}",
                )

    def _mended(self, finding: Finding, wish: Wish, ctx: CallContext) -> Finding:
        ctx.check()
        try:
            mended = self._mend(finding, wish, ctx)
        except Cancelled:
            raise
        except (OrlopError, OSError) as error:
            why = error.message if isinstance(error, OrlopError) else str(error)
            lost = finding.kind in _REFETCHED and isinstance(error, _NOT_TO_BE_HAD)
            if wish.drop and lost:
                mended = self._give_up(finding, why)
            else:
                mended = finding.with_outcome(Outcome.LEFT, why)
        _log.info(
            'check: %s "%s" is %s: %s',
            mended.kind, mended.name, mended.outcome.name.lower(), mended.problem,
        )  # fmt: skip
        return mended

    def _mend(self, finding: Finding, wish: Wish, ctx: CallContext) -> Finding:
        match finding.kind:
            case findings.DAMAGED_BLOB | findings.LOST_BLOB:
                if finding.kind == findings.DAMAGED_BLOB and self._content.remove_orphan(
                    finding.name
                ):
                    return finding.with_outcome(Outcome.DROPPED, "no record knew it")
                self._refetcher.replace(finding.name, wish.access, ctx)
            case findings.MISSING_BLOB:
                self._refetcher.complete(
                    finding.namespace, finding.name, finding.owner, wish.access, ctx
                )
            case findings.WRONG_SIZE:
                if wish.quick:  # it may be what is left of the blob
                    raise FailedPrecondition("its bytes were not read; check without --quick")
                self._content.correct_size(finding.name)
            case findings.ORPHAN_BLOB:
                self._content.remove_orphan(finding.name)
            case findings.ORPHAN_INGEST:
                self._content.remove_orphan_ingest(finding.name)
            case findings.ORPHAN_SNAPSHOT:
                self._snapshotter(finding).remove_orphan(int(finding.name))
            case findings.STUCK_SNAPSHOT:
                self._delete_stuck(finding)
            case findings.LOST_SNAPSHOT | findings.BAD_PARENT | findings.DAMAGED_LAYER:
                return self._give_up_snapshot(finding, wish)
            case findings.DANGLING_LEASE:
                self._release(finding)
            case findings.STRAY_LABEL:
                self._remove_labels(finding)
            case _:
                raise FailedPrecondition(finding.advice)
        return finding.with_outcome(Outcome.REPAIRED)

    def _delete_stuck(self, finding: Finding) -> None:
        store = self._snapshotter(finding)
        with suppress(FailedPrecondition):  # it may be for another one
            store.cleanup()
        for path, why in store.stuck().items():
            if _number(path.name) == _number(finding.name):
                raise FailedPrecondition(f"it cannot be deleted: {why}")

    def _give_up(self, finding: Finding, why: str) -> Finding:
        try:
            aside = self._content.give_up(finding.name)
        except AlreadyExists:
            return finding.with_outcome(Outcome.REPAIRED, "it is whole again meanwhile")
        except (OrlopError, OSError) as error:
            return finding.with_outcome(Outcome.LEFT, f"{why}; it is not given up: {error}")
        where = f", its file is now {aside}" if aside else ""
        _log.error('content "%s" is given up: %s%s', finding.name, why, where)
        return finding.with_outcome(Outcome.DROPPED, f"{why}{where}")

    def _give_up_snapshot(self, finding: Finding, wish: Wish) -> Finding:
        if not wish.drop:
            raise FailedPrecondition("it can only be given up (--drop)")
        with self._database.read() as tx:
            there = rows.snapshot(tx, finding.number)
            users = rows.users_of_snapshot(tx, finding.number)
        if there is None or (finding.kind == findings.LOST_SNAPSHOT and _exists(finding.path)):
            return finding.with_outcome(Outcome.REPAIRED, "it has gone, or was mended, meanwhile")
        if users:
            raise FailedPrecondition("containers need it")
        store = self._snapshotter(finding)
        keys = self._with_descendants(finding)
        for key in keys:
            store.remove(finding.namespace, key)
        return finding.with_outcome(Outcome.DROPPED, f"with {len(keys) - 1} that stood on it")

    def _with_descendants(self, finding: Finding) -> list[str]:
        """A snapshot after all that stands on it."""
        store = self._snapshotter(finding)
        keys = [finding.name]
        listed = store.list(finding.namespace)
        for key in keys:
            for info in listed:
                if info.parent == key:
                    if info.kind is not Kind.COMMITTED:
                        raise FailedPrecondition(f'"{info.name}", which is in use, needs it')
                    keys.append(info.name)
        return keys[::-1]

    def _snapshotter(self, finding: Finding) -> SnapshotStore:
        try:
            return self._snapshotters[finding.store]
        except KeyError:
            raise NotFound(f'snapshotter "{finding.store}"') from None

    def _release(self, finding: Finding) -> None:
        kind = rows.held_kind(finding.store)
        with self._database.write() as tx:
            if not rows.is_there(tx, kind, finding.namespace, finding.name):
                detach_from_lease(tx, finding.namespace, finding.owner, finding.store, finding.name)

    def _remove_labels(self, finding: Finding) -> None:
        with self._database.write() as tx:
            if not rows.is_there(tx, finding.store, finding.namespace, finding.name):
                labels.remove(tx, finding.store, finding.namespace, finding.name)


def _exists(path: str) -> bool:
    return Path(path).exists()


def _number(name: str) -> str:
    """Of which snapshot a folder is, or was before it was put away."""
    return name.rpartition("-")[2]
