"""What a daemon holds: descriptors, threads, memory. It must not grow with what it has done."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Vitals:
    """Counts, and kilobytes of private memory.

    Descriptors of the database come and go with the threads that read it, and do not count.
    """

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
            descriptors=len(held(pid)),
            threads=len(list((process / "task").iterdir())),
            memory=private,
        )


def held(pid: int) -> list[str]:
    """What a process's descriptors are, but for those of the database."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return sorted(each for each in found if "/metadata.db" not in each)
