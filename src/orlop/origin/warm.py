"""Writers of uploads between two requests: to open one again means to hash what is there."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict

from orlop.content import ContentWriter

_log = logging.getLogger(__name__)
_MOST = 64
KEPT = 60.0
"""Seconds: an open writer keeps its file's room, and its ref from being collected."""


class WarmWriters:
    """Keeps some writers open for a while, by ref. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._cooling: set[str] = set()  # those that are just being closed
        # The coldest first, with the time at which each came.
        self._kept: OrderedDict[str, tuple[ContentWriter, float]] = OrderedDict()
        self._timer: threading.Timer | None = None
        self._closed = False

    def take(self, ref: str) -> ContentWriter | None:
        """The writer that is kept for a ref, if there is one; it is the caller's from then on.

        None of ours has the ref then, nor is just being closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: ref not in self._cooling)
            writer, _ = self._kept.pop(ref, (None, 0.0))
        return writer

    def put(self, ref: str, writer: ContentWriter) -> None:
        """Keep a writer, or close it."""
        cold: dict[str, ContentWriter] = {}
        with self._changed:
            if self._closed:
                cold[ref] = writer
            else:
                self._kept[ref] = writer, time.monotonic()
                if len(self._kept) > _MOST:
                    coldest, (older, _) = self._kept.popitem(last=False)
                    cold[coldest] = older
                self._wait()
            self._cooling.update(cold)
        self._let_go(cold)

    def close(self) -> None:
        """Close all; no more are kept."""
        with self._changed:
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
        cold: dict[str, ContentWriter] = {}
        with self._changed:
            self._timer = None
            before = time.monotonic() - KEPT
            while self._kept and next(iter(self._kept.values()))[1] <= before:
                ref, (writer, _) = self._kept.popitem(last=False)
                cold[ref] = writer
            if not self._closed:
                self._wait()
            self._cooling.update(cold)
        self._let_go(cold)

    def _let_go(self, cold: dict[str, ContentWriter]) -> None:
        """Close what is among the cooling; who wants one of them waits for that."""
        for ref, writer in cold.items():
            try:
                writer.close()
            except OSError as error:
                _log.warning("upload %s is put away: %s", ref, error)
            finally:
                with self._changed:
                    self._cooling.discard(ref)
                    self._changed.notify_all()
