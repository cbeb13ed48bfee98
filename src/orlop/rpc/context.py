"""What a service method may ask about the call that it serves."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from orlop.errors import Cancelled, DeadlineExceeded, FailedPrecondition, InvalidArgument

NAMESPACE_HEADER = "containerd-namespace"
NAMESPACE_HEADER_TTRPC = "containerd-namespace-ttrpc"
LEASE_HEADER = "containerd-lease"

_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
IDENTIFIER_MAX = 76


def validate_identifier(kind: str, value: str) -> None:
    """Check a container, exec, namespace or sandbox identifier; raises InvalidArgument.

    Letters and digits with single `.`, `_` or `-` between them, 1 to 76 characters.
    """
    if len(value) > IDENTIFIER_MAX:
        raise InvalidArgument(
            f'{kind} "{value}" is longer than {IDENTIFIER_MAX} characters ({len(value)})'
        )
    if not _IDENTIFIER.fullmatch(value):
        raise InvalidArgument(
            f'{kind} "{value}" must be letters and digits, with single ".", "_" or "-" between them'
        )


class CallContext:
    """One call: its namespace, lease, deadline and cancellation.

    `deadline` is on the clock of `time.monotonic()`, or None. A transport calls `cancel()` when the
    client goes away, when the deadline passes, or when the server stops; a method that blocks
    registers a wake-up with `on_cancel`, then calls `check()`.
    """

    def __init__(
        self,
        *,
        namespace: str = "",
        lease: str = "",
        deadline: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.namespace = namespace
        self.lease = lease
        self.deadline = deadline
        self.metadata: Mapping[str, str] = metadata or {}
        self.received = self.sent = 0  # messages, which transports count
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    def require_namespace(self) -> str:
        """The call's namespace; FailedPrecondition without one, InvalidArgument for a bad one."""
        if not self.namespace:
            raise FailedPrecondition("namespace is required")
        validate_identifier("namespace", self.namespace)
        return self.namespace

    def remaining(self) -> float | None:
        """Seconds until the deadline (never negative), or None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Raise Cancelled or DeadlineExceeded if the call is over."""
        if self.expired:
            raise DeadlineExceeded
        if self._cancelled:
            raise Cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Run `callback` once when the call is cancelled; at once if it already is.

        It may also run after the call has ended by itself, so it must be harmless then. It runs on
        a transport thread: set an event, close a queue, do not block.
        """
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Undo `on_cancel`: a context that lives long must not keep what lived short."""
        with self._lock, suppress(ValueError):
            self._callbacks.remove(callback)

    def cancel(self) -> None:
        """End the call (transports only); idempotent."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
