"""A gRPC server: grpcio's synchronous one, on a pool of threads that grows with the calls."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from orlop.errors import Cancelled, Unavailable
from orlop.rpc import dispatch
from orlop.rpc.context import LEASE_HEADER, NAMESPACE_HEADER, CallContext
from orlop.rpc.dispatch import LiveCalls, OnCall
from orlop.rpc.status import wire_text
from orlop.rpc.table import Method, ServiceTable

MESSAGE_MAX = 16 << 20
_THREADS = 4096
# How long after the last request of a stream the news may come that the client went away.
_LATE_NEWS = 0.02
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.max_send_message_length", MESSAGE_MAX),
    ("grpc.so_reuseport", 0),
)
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """Serves a table, and `grpc.health.v1.Health`, on Unix sockets."""

    def __init__(self, table: ServiceTable, *, on_call: OnCall | None = None) -> None:
        self._live = LiveCalls()
        self._on_call = on_call
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
        self._server = grpc.server(self._pool, options=_OPTIONS)
        self._paths: list[Path] = []
        for service, methods in table.services():
            handlers = {name: self._handler(method) for name, method in methods.items()}
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )
        checks = health.HealthServicer()
        checks.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)

    def add_unix(self, path: Path, mode: int = 0o600) -> None:
        """Listen at `path`; FailedPrecondition when another server does."""
        dispatch.claim_socket_path(path)
        before = os.umask(0o777 & ~mode)
        try:
            if not self._server.add_insecure_port(f"unix:{path}"):
                raise Unavailable(f'cannot listen on "{path}"')
        except RuntimeError as error:
            raise Unavailable(f'cannot listen on "{path}": {error}') from error
        finally:
            os.umask(before)
        path.chmod(mode)
        self._paths.append(path)

    def start(self) -> None:
        self._server.start()

    def stop(self, grace: float = 1.0) -> None:
        """Take no more calls, cancel those that wait, and return when all have ended."""
        stopped = self._server.stop(grace)
        self._live.cancel_all()
        stopped.wait()
        self._pool.shutdown(wait=True)
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _handler(self, method: Method) -> Any:
        serve = self._serve_stream if method.server_streaming else self._serve_unary
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        return make(
            serve(method),
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    def _serve_unary(self, method: Method) -> Callable[[Any, grpc.ServicerContext], Any]:
        def serve(request: Any, outer: grpc.ServicerContext) -> Any:
            started = time.perf_counter()
            context = self._open(outer)
            try:
                response = method.handler(_whole(request, context, method), context)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
                self._fail(error, method, outer, context, started)
            finally:
                self._live.remove(context)
            self._count(method, 0, started)
            return response

        return serve

    def _serve_stream(self, method: Method) -> Callable[[Any, grpc.ServicerContext], Any]:
        def serve(request: Any, outer: grpc.ServicerContext) -> Iterator[Any]:
            started = time.perf_counter()
            context = self._open(outer)
            try:
                yield from method.handler(_whole(request, context, method), context)
            except GeneratorExit:  # the client takes no more
                self._count(method, Cancelled.code, started)
                raise
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(error, method, outer, context, started)
            finally:
                self._live.remove(context)
            self._count(method, 0, started)

        return serve

    def _open(self, outer: grpc.ServicerContext) -> CallContext:
        metadata: dict[str, str] = {}
        for key, value in outer.invocation_metadata():
            metadata.setdefault(key, value)
        context = CallContext(
            namespace=metadata.get(NAMESPACE_HEADER, ""),
            lease=metadata.get(LEASE_HEADER, ""),
            deadline=dispatch.deadline_after(outer.time_remaining()),
            metadata=metadata,
        )
        self._live.add(context)
        if not outer.add_callback(context.cancel):
            context.cancel()
        return context

    def _fail(
        self,
        error: Exception,
        method: Method,
        outer: grpc.ServicerContext,
        context: CallContext,
        started: float,
    ) -> None:
        """Answer with the error; always raises, which is how grpcio ends a call early."""
        gone = not outer.is_active()
        failure = dispatch.failure(error, method.service, method.name, context, gone=gone)
        self._count(method, failure.code, started)
        outer.abort(_STATUS[failure.code], wire_text(failure))

    def _count(self, method: Method, code: int, started: float) -> None:
        if self._on_call is not None:
            passed = time.perf_counter() - started
            self._on_call(method.service, method.name, code, passed)


def _whole(request: Any, context: CallContext, method: Method) -> Any:
    """What the handler is given: a request, or a stream of them that ends only if its client did.

    grpcio ends a stream's iterator alike when the client has said all and when it went away; the
    second shows as a cancelled call, a moment later.
    """
    return _until_closed(request, context) if method.client_streaming else request


def _until_closed(requests: Iterator[Any], context: CallContext) -> Iterator[Any]:
    yield from requests
    gone = threading.Event()
    context.on_cancel(gone.set)
    if gone.wait(_LATE_NEWS):
        raise Cancelled
