from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from orlop import tracing
from orlop.daemon.logs import JsonFormatter, TextFormatter
from orlop.errors import NotFound
from orlop.tally import Counter
from orlop.tracing.sdk import SdkTracer
from tests.patience import patient

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def find(self, name: str) -> ReadableSpan:
        (found,) = [each for each in self.spans if each.name == name]
        return found


class Run:
    """A tracer that is installed until `end`."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.outcomes = Counter("outcome")
        self.tracer = SdkTracer(self.kept, "here", self.outcomes)
        tracing.install(self.tracer)

    def end(self) -> Kept:
        tracing.install(None)
        self.tracer.close()
        return self.kept


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last spans are exported however long that takes."""
    monkeypatch.setattr("orlop.tracing.sdk._CLOSING", patient(30))


@pytest.fixture
def run() -> Iterator[Run]:
    made = Run()
    yield made
    made.end()


def test_nothing_is_done_where_nobody_asks() -> None:
    assert not tracing.on()
    with tracing.span("anything", {"a": 1}, parent=HEADERS) as span:
        span.set({"b": 2})
        span.fail("no")
        assert tracing.ids() is None
        assert tracing.headers() == {}
    assert tracing.carry(len) is len


def test_parts_and_failures(run: Run) -> None:
    with tracing.span("outside"):
        assert tracing.ids() is None, "what is done in the background is no trace"
    with tracing.span("call", kind=tracing.SERVER, parent=HEADERS):
        with pytest.raises(NotFound), tracing.span("part", {"a": True}) as span:
            span.set({"b": 1.5})
            raise NotFound('thing "x"')
        with tracing.span("other") as span:
            span.fail("so it is")
    kept = run.end()
    assert {each.name for each in kept.spans} == {"call", "part", "other"}
    call, part = kept.find("call"), kept.find("part")
    assert call.parent is not None
    assert call.context is not None
    assert part.parent is not None
    assert f"{call.parent.trace_id:032x}-{call.parent.span_id:016x}" == f"{TRACE}-{SPAN}"
    assert part.parent.span_id == call.context.span_id
    assert call.status.status_code is StatusCode.UNSET
    assert part.status.description == 'thing "x": not found'
    assert dict(part.attributes or {}) == {"a": True, "b": 1.5, "error.type": "NotFound"}
    assert kept.find("other").status.description == "so it is"
    assert run.outcomes.read() == {("exported",): 3}


def test_other_threads(run: Run) -> None:
    def work(name: str) -> None:
        with tracing.span(name):
            pass

    with ThreadPoolExecutor(1) as pool, tracing.span("call", parent={}):
        pool.submit(tracing.carry(work), "carried").result()
        pool.submit(work, "lost").result()
    kept = run.end()
    assert {each.name for each in kept.spans} == {"call", "carried"}
    parent, call = kept.find("carried").parent, kept.find("call").context
    assert parent is not None
    assert call is not None
    assert parent.span_id == call.span_id


def test_what_peers_are_told(run: Run) -> None:
    with tracing.span("call", parent={**HEADERS, "tracestate": "vendor=1"}):
        told = tracing.headers()
        found = tracing.ids()
        assert found is not None
        assert told["traceparent"] == f"00-{TRACE}-{found.span}-01"
        assert told["tracestate"] == "vendor=1"
    assert tracing.headers() == {}


def test_what_another_process_has_seen(run: Run) -> None:
    times = tracing.Times(1000, 2000)
    tracing.record("runc create", {"status": 0}, parent=HEADERS, times=times, error="broken")
    tracing.record("lost", {}, parent={"traceparent": "nonsense"}, times=times)
    kept = run.end()
    (found,) = kept.spans
    assert (found.name, found.start_time, found.end_time) == ("runc create", 1000, 2000)
    assert found.parent is not None
    assert f"{found.parent.span_id:016x}" == SPAN
    assert found.status.description == "broken"
    tracing.record("nobody", {}, parent=HEADERS, times=times)
    assert len(kept.spans) == 1


def test_ids_in_the_log(run: Run) -> None:
    record = logging.LogRecord("orlop.x", logging.INFO, "", 1, "a=1 said", (), None)
    with tracing.span("call", parent=HEADERS):
        ids = tracing.ids()
        assert ids is not None
        fields = json.loads(JsonFormatter().format(record))
        assert [fields["trace_id"], fields["span_id"]] == [ids.trace, ids.span]
        line = TextFormatter().format(record)
        assert line.endswith(f"msg=said trace_id={TRACE} span_id={ids.span}")
    assert "trace_id" not in json.loads(JsonFormatter().format(record))


class Stuck(Kept):
    """A collector that says nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.free.wait(60)
        return super().export(spans)


def test_every_span_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    stuck, outcomes = Stuck(), Counter("outcome")
    tracer = SdkTracer(stuck, "here", outcomes)
    tracing.install(tracer)
    for _ in range(100):
        with tracing.span("call", parent={}):
            pass
    dropped = outcomes.read()["dropped",]
    assert 100 - 8 - 4 <= dropped <= 100 - 8
    stuck.free.set()
    tracing.install(None)
    tracer.close()
    assert outcomes.read()["exported",] + dropped == 100
    assert len(stuck.spans) == outcomes.read()["exported",]
