"""What a daemon holds: descriptors, threads, memory. It must not grow with what it has done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Vitals:
    """Counts, and kilobytes of private memory."""

    descriptors: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """Those of a process as it is now."""
        process = Path(f"/proc/{pid}")
        private = 0
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                private += int(line.split()[1])
        return cls(
            descriptors=len(list((process / "fd").iterdir())),
            threads=len(list((process / "task").iterdir())),
            memory=private,
        )
