"""What a server counts of its calls, by method: begun, ended by code, messages, how long.

One lock and one record for each method, since this is on the way of every call.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from orlop import tracing
from orlop.rpc.context import CallContext
from orlop.rpc.table import Method
from orlop.tally import SECONDS, Distribution, Exemplar, Times, Values

CODES = (
    "OK",
    *("Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange"),
    *("Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)
_TRACE = 32


class _Record:
    __slots__ = ("codes", "labels", "received", "sent", "started", "times")

    def __init__(self, method: Method) -> None:
        self.labels = (_kind(method), method.service, method.name)
        self.started = self.received = self.sent = 0
        self.codes: Counter[int] = Counter()
        self.times = Distribution(len(SECONDS) + 1)


class Calls(Times):
    """The calls of one server. As `Times`, how long they took."""

    labels = ("type", "service", "method")
    bounds = SECONDS

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}

    def began(self, method: Method) -> None:
        key = method.service + method.name
        with self._lock:
            record = self._records.get(key)
            if record is None:
                record = self._records[key] = _Record(method)
            record.started += 1

    def ended(self, method: Method, context: CallContext, code: int, seconds: float) -> None:
        bucket = bisect_left(SECONDS, seconds)
        trace = _trace(context)
        with self._lock:
            record = self._records[method.service + method.name]
            record.codes[code] += 1
            record.received += context.received
            record.sent += context.sent
            record.times.counts[bucket] += 1
            record.times.sum += seconds
            if trace:
                record.times.exemplars[bucket] = Exemplar(trace, seconds, time.time())

    # What is read

    def read(self) -> dict[Values, Distribution]:
        with self._lock:
            return {each.labels: each.times.copy() for each in self._records.values()}

    def started(self) -> dict[Values, float]:
        with self._lock:
            return {each.labels: each.started for each in self._records.values()}

    def handled(self) -> dict[Values, float]:
        with self._lock:
            return dict(self._handled())

    def _handled(self) -> Iterator[tuple[Values, float]]:
        for each in self._records.values():
            for code, count in each.codes.items():
                name = CODES[code] if 0 <= code < len(CODES) else "Unknown"
                yield (*each.labels, name), count

    def received(self) -> dict[Values, float]:
        with self._lock:
            return {each.labels: each.received for each in self._records.values()}

    def sent(self) -> dict[Values, float]:
        with self._lock:
            return {each.labels: each.sent for each in self._records.values()}


def _trace(context: CallContext) -> str:
    """The id of the trace that a call belongs to; "" for none.

    Where no traces are sent from here, that of the client's traceparent (W3C Trace Context):
    version, trace id, span id and flags, with "-" between.
    """
    if (ids := tracing.ids()) is not None:
        return ids.trace if ids.recorded else ""
    parts = context.metadata.get("traceparent", "").split("-")
    if len(parts) >= 3 and len(parts[1]) == _TRACE and parts[1].isalnum() and parts[1].isascii():
        return parts[1]
    return ""


def _kind(method: Method) -> str:
    """As go-grpc-prometheus says it."""
    if method.client_streaming:
        return "bidi_stream" if method.server_streaming else "client_stream"
    return "server_stream" if method.server_streaming else "unary"
