"""`orlop.services.health.v1.Health`."""

from __future__ import annotations

from orlop.errors import NotFound
from orlop.health.monitor import Monitor
from orlop.health.state import Health
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.wire.services import health_pb2 as wire


class ContainerHealthService(Service):
    """The thin face of the monitor."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Health"]

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def get(self, request: wire.GetHealthRequest, ctx: CallContext) -> wire.GetHealthResponse:
        found = self._monitor.health(ctx.require_namespace(), request.container_id)
        if found is None:
            raise NotFound(f'health of container "{request.container_id}"')
        return wire.GetHealthResponse(health=_to_wire(request.container_id, found))

    def list(self, request: wire.ListHealthRequest, ctx: CallContext) -> wire.ListHealthResponse:
        found = self._monitor.all(ctx.require_namespace())
        return wire.ListHealthResponse(health=[_brief(*pair) for pair in found])


def _brief(container: str, health: Health) -> wire.ContainerHealth:
    """Without the results, whose output may be 20 KiB of each container."""
    return wire.ContainerHealth(
        container_id=container, status=health.status, failing_streak=health.failing_streak
    )


def _to_wire(container: str, health: Health) -> wire.ContainerHealth:
    found = _brief(container, health)
    for each in health.results:
        found.results.add(
            start=timestamp(each.start),
            end=timestamp(each.end),
            exit_code=each.exit_code,
            output=each.output,
        )
    return found
