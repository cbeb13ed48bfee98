"""Writers of uploads between two requests: to open one again means to hash what is there."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from orlop.content import ContentWriter

_MOST = 64
KEPT = 60.0
"""Seconds: an open writer keeps its file's room, and its ref from being collected."""


class WarmWriters:
    """Keeps some writers open for a while, by ref. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The coldest first, with the time at which each came.
        self._kept: OrderedDict[str, tuple[ContentWriter, float]] = OrderedDict()
        self._timer: threading.Timer | None = None
        self._closed = False

    def take(self, ref: str) -> ContentWriter | None:
        """The writer that is kept for a ref, if there is one; it is the caller's from then on."""
        with self._lock:
            writer, _ = self._kept.pop(ref, (None, 0.0))
        return writer

    def put(self, ref: str, writer: ContentWriter) -> None:
        """Keep a writer, or close it."""
        coldest: ContentWriter | None = None
        with self._lock:
            if self._closed:
                coldest = writer
            else:
                self._kept[ref] = writer, time.monotonic()
                if len(self._kept) > _MOST:
                    _, (coldest, _) = self._kept.popitem(last=False)
                self._wait()
        if coldest is not None:
            coldest.close()

    def close(self) -> None:
        """Close all; no more are kept."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            writers = [writer for writer, _ in self._kept.values()]
            self._kept.clear()
        for each in writers:
            each.close()

    def _wait(self) -> None:
        """Until the coldest has been kept for long enough; the lock is held."""
        if self._timer is None and self._kept:
            _, came = next(iter(self._kept.values()))
            left = max(0.0, came + KEPT - time.monotonic())
            self._timer = threading.Timer(left, self._cool)
            self._timer.daemon = True
            self._timer.start()

    def _cool(self) -> None:
        cold: list[ContentWriter] = []
        with self._lock:
            self._timer = None
            before = time.monotonic() - KEPT
            while self._kept and next(iter(self._kept.values()))[1] <= before:
                cold.append(self._kept.popitem(last=False)[1][0])
            if not self._closed:
                self._wait()
        for each in cold:
            each.close()
