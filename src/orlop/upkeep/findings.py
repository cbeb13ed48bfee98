"""What a check finds, and what became of it."""

from __future__ import annotations

from enum import IntEnum

import msgspec

DATABASE = "database"
DAMAGED_BLOB = "damaged-blob"
LOST_BLOB = "lost-blob"
WRONG_SIZE = "wrong-size"
ORPHAN_BLOB = "orphan-blob"
MISSING_BLOB = "missing-blob"
MISSING_TARGET = "missing-target"
ORPHAN_INGEST = "orphan-ingest"
DAMAGED_LAYER = "damaged-layer"
LOST_ROOT = "lost-root"
LOST_SNAPSHOT = "lost-snapshot"
BAD_PARENT = "bad-parent"
ORPHAN_SNAPSHOT = "orphan-snapshot"
STUCK_SNAPSHOT = "stuck-snapshot"
DANGLING_LEASE = "dangling-lease"
STRAY_LABEL = "stray-label"

_LITTER = {
    ORPHAN_BLOB, ORPHAN_INGEST, ORPHAN_SNAPSHOT, STUCK_SNAPSHOT, DANGLING_LEASE, STRAY_LABEL,
}  # fmt: skip
_ADVICE = {
    DATABASE: "stop the daemon and put a backup of the database in its place",
    DAMAGED_BLOB: "--repair fetches it again; or remove the images that need it and pull them",
    LOST_BLOB: "--repair fetches it again; or remove the images that need it and pull them",
    WRONG_SIZE: "--repair corrects the record",
    MISSING_BLOB: "--repair fetches it; or pull the images that need it",
    MISSING_TARGET: "pull the image again, or remove it",
    DAMAGED_LAYER: "remove the containers that need it; --repair --drop removes it where none does",
    LOST_ROOT: "remove the container, and make it anew from its image",
    LOST_SNAPSHOT: "remove the containers that need it; --repair --drop removes it where none does",
    BAD_PARENT: "remove the containers that need it; --repair --drop removes it where none does",
    STUCK_SNAPSHOT: "see what is mounted below it, or has the attribute i or a (lsattr -R)",
}
_LITTER_ADVICE = "--repair removes it"


class Outcome(IntEnum):
    """What became of a finding; numbers as on the wire."""

    FOUND = 0
    REPAIRED = 1
    DROPPED = 2
    LEFT = 3


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is not as it should be.

    `namespace` is "" where it is of none in particular; `store` is the snapshotter of a snapshot,
    the type of what a lease holds, or the kind of record that a label is of. `number` is that of a
    snapshot; `used_by` names images and containers, by namespace.
    """

    kind: str
    name: str
    problem: str
    namespace: str = ""
    store: str = ""
    number: int = 0
    path: str = ""
    owner: str = ""
    used_by: tuple[str, ...] = ()
    outcome: Outcome = Outcome.FOUND

    @property
    def damage(self) -> bool:
        """Whether something is lost or wrong; else it only takes room."""
        return self.kind not in _LITTER

    @property
    def advice(self) -> str:
        """What to do about it."""
        return _ADVICE.get(self.kind, _LITTER_ADVICE)

    @property
    def is_left(self) -> bool:
        """Whether there is damage still."""
        return self.damage and self.outcome in (Outcome.FOUND, Outcome.LEFT)

    def with_outcome(self, outcome: Outcome, why: str = "") -> Finding:
        """The same, dealt with; `why` not better."""
        problem = f"{self.problem}; {why}" if why else self.problem
        return msgspec.structs.replace(self, outcome=outcome, problem=problem)
