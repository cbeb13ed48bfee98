"""`orlopd check`: what `orlop store check` finds, where no daemon runs or could run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orlop.daemon.rootlock import RootLock
from orlop.errors import NotFound

if TYPE_CHECKING:
    from orlop.upkeep import Finding


def run(root: Path, *, quick: bool) -> int:
    """Print what is wrong below `root`, a line each; 1 if that is damage, else 0.

    Raises FailedPrecondition while a daemon runs, NotFound without a database.
    """
    if not (root / "metadata.db").exists():
        raise NotFound(f'there is no database "{root}/metadata.db"')
    from orlop.upkeep.inspection import Inspection  # noqa: PLC0415 - the daemon starts without it

    damaged = False

    def tell(finding: Finding) -> None:
        nonlocal damaged
        damaged = damaged or finding.damage
        users = f" (used by {', '.join(finding.used_by)})" if finding.used_by else ""
        print(f"{finding.kind} {finding.path or finding.name}: {finding.problem}{users}")  # noqa: T201

    lock = RootLock(root)
    try:
        looked_at = Inspection(root, tell, lambda done, total: None).run(quick=quick)
    finally:
        lock.release()
    print(f"{looked_at.blobs} blobs, {looked_at.snapshots} snapshots")  # noqa: T201
    return 1 if damaged else 0
