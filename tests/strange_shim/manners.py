"""What a test wants of the shim."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

RELEASES = ("1.6.20~ds1", "1.7.27", "v2.0.5", "v2.2.1", "v2.3.0", "v2.4.0-beta.0")


@dataclass(frozen=True, slots=True)
class Manners:
    """How the shim behaves.

    `release` is the containerd whose shims it follows, `says` what it gives for its version
    instead. `step` is `start`, `delete`, or the name of a call; there it commits its `fault`:
    `hang`, `die` (before it answers), `leave` (after), `stay` (once, where it is to go), or the
    kind of nonsense that it answers; not to what is asked of the container `spared`. `flood` is how
    many events it sends when a container starts; with `babbles`, it sends some then that are none.
    """

    release: str = RELEASES[0]
    says: str = ""
    step: str = ""
    fault: str = ""
    spared: str = "calm"
    flood: int = 0
    babbles: bool = False
    reads_answers: bool = True

    def write(self, path: Path) -> None:
        """At once, for a shim that reads them at any moment."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        os.replace(new, path)  # noqa: PTH105

    @classmethod
    def read(cls, path: Path) -> Manners:
        return cls(**json.loads(path.read_text()))

    @property
    def version(self) -> tuple[int, int]:
        """The release's first two numbers."""
        major, minor = self.release.removeprefix("v").split(".")[:2]
        return int(major), int(minor)
