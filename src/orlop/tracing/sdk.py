"""OpenTelemetry's tracer: spans go in batches to a collector, by OTLP.

Nobody ever waits for that: the queue is bounded, what does not fit or cannot be sent is counted,
and the log says once that a collector is away, and once that it is back.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orlop import __version__, tracing
from orlop.tally import Counter
from orlop.tracing import Attributes, Ids, Span, Times

_log = logging.getLogger(__name__)

NAME = "orlopd"
EXPORTED, FAILED, DROPPED = "exported", "failed", "dropped"
_KINDS = {
    tracing.INTERNAL: SpanKind.INTERNAL,
    tracing.SERVER: SpanKind.SERVER,
    tracing.CLIENT: SpanKind.CLIENT,
}
_QUEUED = 2048
_CLOSING = 2.0
"""Seconds that the last spans may take when the daemon stops."""


class SdkTracer:
    """A tracer for `tracing.install`; the owner calls `close`.

    `collector` is what messages call the receiver. `sampler` None is what the environment says.
    `outcomes` counts spans by what became of them, and none in between is waited for.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        collector: str,
        outcomes: Counter,
        sampler: Sampler | None = None,
    ) -> None:
        self._complaints = _Complaints()
        watched = _Watched(exporter, collector, outcomes, self._complaints)
        resource = Resource({SERVICE_NAME: NAME, SERVICE_VERSION: __version__})
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
        resource = resource.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(_Batches(watched, outcomes))
        self._exporter = watched
        self._tracer = self._provider.get_tracer("orlop", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._complaints.listen()

    def span(
        self, name: str, kind: str, attributes: Attributes, parent: Mapping[str, str] | None
    ) -> AbstractContextManager[Span]:
        if parent is None and not trace.get_current_span().get_span_context().is_valid:
            return tracing.UNSEEN
        context = None if parent is None else self._propagator.extract(parent)
        span = self._tracer.start_span(
            name, context, _KINDS[kind], attributes, record_exception=False
        )
        return _Running(span)

    def record(
        self, name: str, attributes: Attributes, parent: Mapping[str, str], times: Times, error: str
    ) -> None:
        context = self._propagator.extract(parent)
        if not trace.get_current_span(context).get_span_context().is_valid:
            return
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=times.began)
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(times.ended)

    def ids(self) -> Ids | None:
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return Ids(
            trace.format_trace_id(found.trace_id),
            trace.format_span_id(found.span_id),
            found.trace_flags.sampled,
        )

    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        self._propagator.inject(found)
        return found

    def close(self) -> None:
        """Send what is left, within two seconds; a collector that hangs is left to itself."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        ending.join(_CLOSING)
        if ending.is_alive():
            self._exporter.shutdown()
        self._complaints.close()


class _Running:
    """A span for the time of a `with` block."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> _Running:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self.fail(str(error))
        otel_context.detach(self._token)
        self._span.end()

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, message: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, message))


class _Watched(SpanExporter):
    """Counts what a collector takes, and tells of it when that changes."""

    def __init__(
        self, exporter: SpanExporter, collector: str, outcomes: Counter, complaints: _Complaints
    ) -> None:
        self._exporter = exporter
        self._collector = collector
        self._outcomes = outcomes
        self._complaints = complaints
        self._lost = 0
        self._closed = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._outcomes.add(EXPORTED, by=len(spans))
            if self._lost:
                _log.info(
                    'collector "%s" takes spans again; %d are lost', self._collector, self._lost
                )
                self._lost = 0
        else:
            self._outcomes.add(FAILED, by=len(spans))
            if not self._lost:
                _log.warning(
                    'collector "%s" takes no spans, and all are lost until it does: %s',
                    self._collector,
                    self._complaints.last,
                )
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Batches(BatchSpanProcessor):
    """OpenTelemetry's queue, which drops the oldest span where there is no room, and does not tell.

    Its settings are those of the environment: OTEL_BSP_MAX_QUEUE_SIZE and others.
    """

    def __init__(self, exporter: _Watched, outcomes: Counter) -> None:
        self._most = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or _QUEUED)
        super().__init__(exporter, self._most)
        self._taken = exporter
        self._outcomes = outcomes
        self._counting = threading.Lock()
        self._queued = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            with self._counting:
                if self._queued - self._taken.taken >= self._most:
                    self._outcomes.add(DROPPED)
                else:
                    self._queued += 1
        super().on_end(span)


class _Complaints(logging.Handler):
    """Keeps what OpenTelemetry last logged: it does so for every batch, and every try."""

    def __init__(self) -> None:
        super().__init__()
        self.last = "no reason is given"
        self._logger = logging.getLogger("opentelemetry")

    def listen(self) -> None:
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True
        super().close()
