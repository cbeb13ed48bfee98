"""`orlop.services.store.v1`: care for the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from orlop.errors import InvalidArgument
from orlop.fork.worker import Spawner, Worker
from orlop.rpc import CallContext, Service
from orlop.upkeep.adopting import Adopter
from orlop.upkeep.backup import Backups
from orlop.upkeep.checking import Checker, Wish
from orlop.upkeep.findings import Finding
from orlop.upkeep.refetching import Access
from orlop.upkeep.relay import relayed
from orlop.wire.services import store_pb2 as pb

_MEASURE = "orlop.upkeep.measuring:job"


class StoreService(Service):
    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Store"]

    def __init__(self, root: Path, forks: Spawner, checker: Checker, adopter: Adopter) -> None:
        self._root = root
        self._forks = forks
        self._checker = checker
        self._adopter = adopter
        self._backups = Backups(root, forks)

    def check(self, request: pb.CheckRequest, ctx: CallContext) -> Iterator[pb.CheckResponse]:
        access = request.registry
        wish = Wish(
            quick=request.quick,
            repair=request.repair,
            drop=request.drop,
            access=Access(
                ctx.namespace, access.default_scheme, access.host_dir, access.auth_stream
            ),
        )

        def work(answer: Callable[[pb.CheckResponse], None]) -> None:
            left = 0

            def tell(finding: Finding) -> None:
                nonlocal left
                left += finding.is_left
                answer(pb.CheckResponse(finding=_finding(finding)))

            def advance(done: int, total: int) -> None:
                answer(pb.CheckResponse(progress=pb.CheckProgress(done=done, total=total)))

            found = self._checker.run(wish, ctx, tell, advance)
            summary = pb.CheckSummary(
                blobs=found.blobs, bytes=found.bytes, snapshots=found.snapshots, damage_left=left
            )
            answer(pb.CheckResponse(summary=summary))

        return relayed(work, "store-check")

    def adopt(self, request: pb.AdoptRequest, ctx: CallContext) -> Iterator[pb.AdoptResponse]:
        path = _absolute(request.path)

        def work(answer: Callable[[pb.AdoptResponse], None]) -> None:
            self._adopter.adopt(
                path, ctx, lambda taken: answer(pb.AdoptResponse(**taken._asdict()))
            )

        return relayed(work, "store-adopt")

    def backup(self, request: pb.BackupRequest, ctx: CallContext) -> Iterator[pb.BackupResponse]:
        path = _absolute(request.path)

        def work(answer: Callable[[pb.BackupResponse], None]) -> None:
            def advance(done: int, total: int) -> None:
                answer(pb.BackupResponse(progress=pb.BackupProgress(done=done, total=total)))

            saved = self._backups.make(path, ctx, advance)
            summary = pb.BackupSummary(
                blobs=saved.blobs, bytes=saved.bytes, how=saved.how, lost=saved.lost
            )
            answer(pb.BackupResponse(summary=summary))

        return relayed(work, "store-backup")

    def usage(self, request: pb.UsageRequest, ctx: CallContext) -> pb.UsageResponse:
        args = {"root": str(self._root)}
        with Worker(self._forks, _MEASURE, args, name="orlop-df") as worker:
            ctx.on_cancel(worker.cancel)
            try:
                found = worker.result()
            finally:
                ctx.check()
        return pb.UsageResponse(taken=[pb.Taken(**each) for each in found])


def _absolute(path: str) -> Path:
    found = Path(path)
    if not found.is_absolute():
        raise InvalidArgument(f'path "{path}" is not absolute')
    return found


def _finding(found: Finding) -> pb.Finding:
    return pb.Finding(
        kind=found.kind,
        damage=found.damage,
        namespace=found.namespace,
        name=found.name,
        path=found.path,
        problem=found.problem,
        used_by=found.used_by,
        advice=found.advice,
        outcome=pb.Finding.Outcome.Name(found.outcome),
    )
