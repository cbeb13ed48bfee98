"""When to collect: soon after something was lost, never often, and at once for who waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from orlop.errors import Internal, OrlopError, Unavailable
from orlop.gc.collector import Collection, Collector
from orlop.rpc import CallContext
from orlop.tally import Counter, Timing

_log = logging.getLogger(__name__)

_LEAST_RUN = 0.005
_MOST_SLEEP = 3600.0
_AFTER_FAILURE = 10.0
_LOOK = 0.05
_MOST_REST = 5.0  # most of a long collection is no hindrance: files that are deleted


@dataclass(frozen=True, slots=True)
class Thresholds:
    """containerd's knobs.

    `pause_threshold` is the part of all time that collections may take, at most 0.5.
    `deletion_threshold` losses of what kept something have one begin without waiting for that, and
    `mutation_threshold` new records have one begin; 0 is never. `schedule_delay` passes before
    each, `startup_delay` before the first, in seconds.
    """

    pause_threshold: float = 0.02
    deletion_threshold: int = 0
    mutation_threshold: int = 100
    schedule_delay: float = 0.0
    startup_delay: float = 0.1


class Scheduler:
    """A thread that collects. Idle, it sleeps until the next lease, image or ingest ends.

    `on_run` is told of each collection, None for one that failed.
    """

    def __init__(
        self,
        collector: Collector,
        thresholds: Thresholds | None = None,
        on_run: Callable[[Collection | None], None] = lambda _: None,
    ) -> None:
        self._collector = collector
        self._limits = thresholds or Thresholds()
        self._on_run = on_run
        self._condition = threading.Condition()
        self._touched = True
        self._closed = False
        self._asked = 0  # collections that somebody waits for: one that begins serves all before
        self._begun = 0
        self._done = 0
        self._failure = ""  # of the last collection
        self._leftovers = False  # names that the daemon before has not looked at
        self._average = _LEAST_RUN
        self._failed = False  # then what waits is what failed: its number is no hurry
        self.collections = Counter("status")
        self.seconds = Timing()
        self.removed = Counter("kind")
        self._thread = threading.Thread(target=self._loop, name="gc", daemon=True)

    def start(self) -> None:
        self._leftovers = self._collector.waiting()[0] > 0
        self._thread.start()

    def close(self) -> None:
        """Let a collection that runs end, and begin no other."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def touch(self) -> None:
        """The database was written to; from any thread, cheap."""
        if self._touched:
            return
        with self._condition:
            self._touched = True
            self._condition.notify_all()

    def waiting(self) -> tuple[int, int]:
        """How many names the next collection looks at, and how many of them lost a keeper."""
        return self._collector.waiting()

    def collect(self, ctx: CallContext) -> None:
        """Wait for a collection that begins from now on.

        Raises Cancelled when the call is, Internal when the collection fails, Unavailable when the
        daemon stops.
        """
        ctx.on_cancel(self._wake)
        with self._condition:
            self._asked += 1
            mine = self._asked
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._done >= mine or ctx.cancelled or self._closed)
            if self._done < mine:
                ctx.check()
                raise Unavailable("the daemon stops before garbage is collected")
            if self._failure:
                raise Internal(f"collection of garbage: {self._failure}")

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _loop(self) -> None:
        rest = self._limits.startup_delay
        while not self._closed:
            try:
                if self._await_reason() and self._rest(rest):
                    rest = self._look()
            except Exception as error:  # noqa: BLE001 - what ails the database may pass
                _complain("cannot see whether there is garbage", error)
                rest = _AFTER_FAILURE
                self._touched = self._failed = True
                self._settle(self._asked, str(error))

    def _look(self) -> float:
        """Collect if there is reason to; seconds to rest before the next look."""
        if not self._is_due():
            return self._interval()
        if self._limits.schedule_delay and not self._rest(self._limits.schedule_delay):
            return 0.0
        return self._interval() if self._run() else _AFTER_FAILURE

    def _await_reason(self) -> bool:
        """Until something was written, has ended, or is waited for; False when closed."""
        with self._condition:
            awaited = self._touched or self._asked > self._begun
        expiry = None if awaited else self._collector.next_expiry()
        patience = _MOST_SLEEP if expiry is None else max(0.0, expiry - time.time())
        with self._condition:
            self._condition.wait_for(
                lambda: self._touched or self._asked > self._begun or self._closed,
                0 if awaited else min(patience, _MOST_SLEEP),
            )
            self._touched = False
            return not self._closed

    def _rest(self, seconds: float) -> bool:
        """Let writes gather, but for who waits or when there is too much; False when closed."""
        end = time.monotonic() + seconds
        limit = 0 if self._failed else self._limits.deletion_threshold
        while (left := end - time.monotonic()) > 0:
            with self._condition:
                if self._condition.wait_for(
                    lambda: self._closed or self._asked > self._begun,
                    min(left, _LOOK) if limit else left,
                ):
                    break
            if limit and self._collector.waiting()[1] >= limit:
                break
        return not self._closed

    def _is_due(self) -> bool:
        if self._asked > self._begun:
            return True
        names, lost = self._collector.waiting()
        limit = self._limits.mutation_threshold
        if lost or (limit and names >= limit) or self._leftovers:
            return True
        expiry = self._collector.next_expiry()
        return expiry is not None and expiry <= time.time()

    def _run(self) -> bool:
        with self._condition:
            serves = self._begun = self._asked
            self._leftovers = False
        outcome: Collection | None = None
        failure = ""
        try:
            outcome = self._collector.run(lambda: self._closed)
        except Exception as error:  # noqa: BLE001 - the next one may succeed, and must come
            failure = str(error) or type(error).__name__
            self._touched = True
            _complain("garbage is not collected", error)
        else:
            self._average = max(_LEAST_RUN, (self._average + outcome.seconds) / 2)
            if any(outcome.removed.values()):
                told = " ".join(f"{kind}={n}" for kind, n in sorted(outcome.removed.items()) if n)
                _log.debug("collected %s in %.0f ms", told, outcome.seconds * 1000)
        self._failed = bool(failure)
        self._count(outcome)
        self._on_run(outcome)
        self._settle(serves, failure)
        return not failure

    def _count(self, outcome: Collection | None) -> None:
        self.collections.add("success" if outcome else "fail")  # as containerd says
        if outcome is not None:
            self.seconds.observe(outcome.seconds)
            for kind, count in outcome.removed.items():
                self.removed.add(kind, by=count)

    def _settle(self, served: int, failure: str) -> None:
        with self._condition:
            self._begun = max(self._begun, served)
            self._done = served
            self._failure = failure
            self._condition.notify_all()

    def _interval(self) -> float:
        """Seconds of rest that keep collections within their part of all time."""
        part = min(max(self._limits.pause_threshold, 0.001), 0.5)
        return min(self._average / part - self._average, _MOST_REST)


def _complain(what: str, error: Exception) -> None:
    """In a line; with where it came from if it is nobody's business to raise it."""
    if isinstance(error, (OrlopError, OSError)):
        _log.warning("%s: %s", what, error)
    else:
        _log.error(what, exc_info=error)
