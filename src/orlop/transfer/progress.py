"""What a transfer says while it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from orlop.oci.descriptor import Descriptor
from orlop.tracing import Attributes

_INTERVAL = 0.1

WAITING, DOWNLOADING, COMPLETE, EXISTS = "waiting", "downloading", "complete", "already exists"
UPLOADING, MOUNTED = "uploading", "mounted"
EXTRACTING, EXTRACTED, SAVED = "extracting", "extracted", "saved"


@dataclass(frozen=True, slots=True)
class Progress:
    """One object's state. `name` is its ingest ref, or the name of an image that was saved, or ""
    for the transfer itself; `parents` are the refs of what refers to it; sizes in bytes."""

    event: str
    name: str = ""
    done: int = 0
    total: int = 0
    digest: str = ""
    media_type: str = ""
    parents: tuple[str, ...] = ()


Report = Callable[[Progress], None]


def about(part: Descriptor) -> Attributes:
    """An object, as spans name it."""
    return {
        "orlop.digest": part.digest,
        "orlop.media_type": part.media_type,
        "orlop.size": part.size,
    }


class Throttle:
    """Passes on every change of state, and of mere numbers about ten a second for each object."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._last: dict[str, tuple[str, float]] = {}

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        with self._lock:
            event, when = self._last.get(progress.name, ("", 0.0))
            if event == progress.event and now - when < _INTERVAL:
                return
            self._last[progress.name] = (progress.event, now)
        self._report(progress)
