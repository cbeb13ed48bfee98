"""One dockerd per engine for all tests; each test leaves it as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd
from tests.compat.docker.engines import ENGINES, Harbour


@pytest.fixture(scope="session", params=list(ENGINES))
def dockyard(request: pytest.FixtureRequest, busybox_archive: Path) -> Iterator[Dockerd]:
    """A dockerd that has busybox; at its end nothing of it or of the daemon below may be left."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = ENGINES[request.param]()
    try:
        harbour = Harbour(engine)
        engine.inside = harbour.inside
        engine.start()
        dockerd = Dockerd(engine, harbour, busybox_archive)
        try:
            dockerd.start()
            dockerd.clear()
            yield dockerd
            dockerd.close()
        finally:
            dockerd.discard()
        harbour.close()
        engine.close()
    finally:
        engine.discard()


@pytest.fixture
def dockerd(dockyard: Dockerd) -> Iterator[Dockerd]:
    """The dockerd, without containers, networks, volumes and images but busybox."""
    yield dockyard
    dockyard.clear()
