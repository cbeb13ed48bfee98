"""Health, as clients of gRPC ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2 as wire

from orlop.errors import NotFound, Unavailable
from orlop.rpc import ServiceTable
from orlop.rpc.client import Client
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.health import HealthService
from orlop.rpc.reactor import Reactor


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GrpcServer]:
    reactor = Reactor()
    found = GrpcServer(ServiceTable(HealthService()), reactor)
    found.add_unix(tmp_path / "s")
    found.start()
    yield found
    found.stop()
    reactor.close()


def test_health(server: GrpcServer, tmp_path: Path) -> None:
    channel = GrpcChannel(str(tmp_path / "s"))
    client = Client(HealthService.DESCRIPTOR, channel)
    serving = wire.HealthCheckResponse.SERVING
    assert client.check(wire.HealthCheckRequest()).status == serving
    with pytest.raises(NotFound, match='"nobody"'):
        client.check(wire.HealthCheckRequest(service="nobody"))
    assert client.list(wire.HealthListRequest()).statuses[""].status == serving
    with client.watch(wire.HealthCheckRequest()) as watched:
        assert next(watched).status == serving
    with client.watch(wire.HealthCheckRequest(service="nobody")) as watched:
        assert next(watched).status == wire.HealthCheckResponse.SERVICE_UNKNOWN
    with client.watch(wire.HealthCheckRequest()) as watched:
        assert next(watched).status == serving
        server.stop()
        with pytest.raises(Unavailable):
            next(watched)
    channel.close()
