"""A collector of traces that speaks OTLP, by HTTP and by gRPC, and keeps what it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.patience import patient

INTERNAL = trace_pb2.Span.SPAN_KIND_INTERNAL
SERVER = trace_pb2.Span.SPAN_KIND_SERVER
CLIENT = trace_pb2.Span.SPAN_KIND_CLIENT

Value = str | int | float | bool


@dataclass(frozen=True)
class Seen:
    """A span that a collector was sent."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    failed: bool
    attributes: dict[str, Value]
    service: str


class Collector:
    """What was sent, usable from any thread; `trouble` is called before each answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Seen] = []
        self.requests = 0
        self.trouble: Callable[[], None] = lambda: None
        self.port = 0

    def take(self, request: ExportTraceServiceRequest) -> None:
        self.trouble()
        found = [
            _seen(span, service)
            for part in request.resource_spans
            for service in [str(_values(part.resource.attributes).get("service.name"))]
            for scope in part.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self.requests += 1
            self._spans += found

    def spans(self, name: str = "", **attributes: Value) -> list[Seen]:
        """Those of a name, with these attributes (a dot is written "__")."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        with self._lock:
            return [
                each
                for each in self._spans
                if name in ("", each.name) and wanted.items() <= each.attributes.items()
            ]

    def await_span(self, name: str, **attributes: Value) -> Seen:
        """The only span of this kind, once it is here."""
        deadline = time.monotonic() + patient(30)
        while not (found := self.spans(name, **attributes)):
            assert time.monotonic() < deadline, sorted({each.name for each in self.spans()})
            time.sleep(0.05)
        assert len(found) == 1, found
        return found[0]

    def within(self, span: Seen) -> list[Seen]:
        """All parts of a span, and theirs."""
        found = [each for each in self.spans() if each.parent == span.id]
        return found + [part for each in found for part in self.within(each)]

    def path(self, span: Seen) -> list[str]:
        """The names of a span and of those that it is part of, as far as they are here."""
        above = [each for each in self.spans() if each.id == span.parent]
        return [span.name, *(self.path(above[0]) if above else [])]


@contextmanager
def by_http() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            data = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(ExportTraceServiceRequest.FromString(data))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def by_grpc() -> Iterator[Collector]:
    collector = Collector()

    def export(
        request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        collector.take(request)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export,
        ExportTraceServiceRequest.FromString,
        ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


def _seen(span: trace_pb2.Span, service: str) -> Seen:
    return Seen(
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        begin=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes=_values(span.attributes),
        service=service,
    )


def _values(attributes: object) -> dict[str, Value]:
    return {each.key: _value(each.value) for each in attributes}  # type: ignore[attr-defined]


def _value(value: AnyValue) -> Value:
    found: Value = getattr(value, value.WhichOneof("value") or "string_value")
    return found
