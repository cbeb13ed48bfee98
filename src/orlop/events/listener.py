"""A thread of the daemon that acts on events, and that no single one of them can end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from orlop.errors import OrlopError, ResourceExhausted
from orlop.events.exchange import Exchange
from orlop.wire.types_pb2 import Envelope

_AGAIN = 5.0  # seconds
_log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


class Listener:
    """Events are heard from the moment it is made, and told from `start` to `close`.

    `heard` is called with each event of `topics`. `missed` is for when some were lost: it looks
    at what the events would have told, and is called again every few seconds while it fails.
    `rounds`, if there is one, is called every `interval` seconds. What they raise is logged, and
    costs nobody the next event.
    """

    def __init__(
        self,
        exchange: Exchange,
        name: str,
        topics: Iterable[str],
        heard: Callable[[Envelope], None],
        missed: Callable[[], None] = _nothing,
        *,
        rounds: Callable[[], None] = _nothing,
        interval: float | None = None,
    ) -> None:
        self._exchange = exchange
        self._name = name
        self._topics = frozenset(topics)
        self._heard = heard
        self._missed = missed
        self._rounds = rounds
        self._interval = interval
        self._next_round = time.monotonic()
        self._lock = threading.Lock()
        self._closed = False
        self._events = exchange.subscribe(topics=self._topics)
        self._complaint = ""
        self._thread: threading.Thread | None = None

    def start(self, first: Callable[[], None] = _nothing) -> None:
        """Begin with `first`, on the thread; it is tried again like `missed`."""
        self._thread = threading.Thread(
            target=self._run, args=(first,), name=self._name, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Wait for what is just being told; the rest is dropped. Idempotent."""
        with self._lock:
            self._closed = True
            self._events.close()
        if self._thread is not None:
            self._thread.join()

    def _run(self, due: Callable[[], None]) -> None:
        again = time.monotonic()
        while not self._closed:
            if due is not _nothing and time.monotonic() >= again:
                due = _nothing if self._done(due) else due
                again = time.monotonic() + _AGAIN
            try:
                found = self._events.take(self._interval if due is _nothing else _AGAIN)
            except ResourceExhausted:
                due, again = self._missed, time.monotonic()
                self._subscribe()
                continue
            for envelope in found or ():
                if self._closed:
                    return
                self._tell(envelope)
            if self._interval is not None and time.monotonic() >= self._next_round:
                self._done(self._rounds)
                self._next_round = time.monotonic() + self._interval

    def _subscribe(self) -> None:
        with self._lock:
            if not self._closed:
                self._events = self._exchange.subscribe(topics=self._topics)

    def _tell(self, envelope: Envelope) -> None:
        try:
            self._heard(envelope)
        except OrlopError as error:
            _log.warning(
                "namespace=%s topic=%s %s: %s",
                envelope.namespace,
                envelope.topic,
                self._name,
                error,
            )
        except Exception:  # noqa: BLE001 - what comes later must be heard
            _log.exception(
                "namespace=%s topic=%s %s", envelope.namespace, envelope.topic, self._name
            )

    def _done(self, action: Callable[[], None]) -> bool:
        """Whether it did not raise; a complaint is not made twice in a row."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - what comes later must be heard
            told, self._complaint = self._complaint, repr(error)
            if self._complaint != told:
                expected = isinstance(error, OrlopError)
                _log.warning("%s: %s", self._name, error, exc_info=None if expected else error)
            return False
        return True
