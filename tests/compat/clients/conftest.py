"""A daemon of each kind for all tests, and an empty namespace for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.client import Connection
from orlop.errors import NotFound
from orlop.wire.services import leases_pb2
from tests.compat.clients.peer import HOLD, Peer, clear
from tests.compat.docker.engines import ENGINES
from tests.daemon_fixture import Orlopd, serving_with


@pytest.fixture(scope="session", params=list(ENGINES))
def daemon(request: pytest.FixtureRequest) -> Iterator[Orlopd]:
    """Each of the daemons; at its end nothing of it may be left."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    yield from serving_with(ENGINES[request.param]())


@pytest.fixture
def engine(daemon: Orlopd) -> Iterator[Orlopd]:
    """The daemon, with nothing in its namespace."""
    yield daemon
    with Peer(daemon.address, daemon.namespace) as peer:
        try:
            clear(peer)
        except NotFound:
            pass  # the test made nothing in it


@pytest.fixture
def peer(engine: Orlopd) -> Iterator[Connection]:
    """A client of it, under a lease that holds what it makes."""
    with Peer(engine.address, engine.namespace) as made:
        made.leases.create(leases_pb2.CreateRequest(id=HOLD))
        yield made.with_lease(HOLD)


@pytest.fixture
def busybox(engine: Orlopd, busybox_archive: Path) -> Orlopd:
    """The daemon, which has the small image, unpacked."""
    engine.ctr("images", "import", str(busybox_archive))
    return engine
