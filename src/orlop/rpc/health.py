"""`grpc.health.v1.Health`, which clients ask before they begin: whoever is answered is served."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from grpc_health.v1 import health_pb2 as wire

from orlop.errors import NotFound
from orlop.rpc.context import CallContext
from orlop.rpc.table import Service

_SERVING = wire.HealthCheckResponse(status=wire.HealthCheckResponse.SERVING)


class HealthService(Service):
    """Knows the server as a whole, whose name is empty."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Health"]

    def check(self, request: wire.HealthCheckRequest, ctx: CallContext) -> wire.HealthCheckResponse:
        if request.service:
            raise NotFound(f'health of service "{request.service}"')
        return _SERVING

    def list(self, request: wire.HealthListRequest, ctx: CallContext) -> wire.HealthListResponse:
        return wire.HealthListResponse(statuses={"": _SERVING})

    def watch(
        self, request: wire.HealthCheckRequest, ctx: CallContext
    ) -> Iterator[wire.HealthCheckResponse]:
        """The state, and then nothing until the client or the server goes."""
        if request.service:
            yield wire.HealthCheckResponse(status=wire.HealthCheckResponse.SERVICE_UNKNOWN)
        else:
            yield _SERVING
        over = threading.Event()
        ctx.on_cancel(over.set)
        over.wait()
        ctx.check()
