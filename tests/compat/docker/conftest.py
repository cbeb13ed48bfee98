"""One dockerd per engine for all tests; each test leaves it as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd, dockerd_on
from tests.compat.docker.engines import ENGINES


@pytest.fixture(scope="session", params=list(ENGINES))
def dockyard(request: pytest.FixtureRequest, busybox_archive: Path) -> Iterator[Dockerd]:
    """A dockerd on each of the daemons."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with dockerd_on(ENGINES[request.param](), busybox_archive) as made:
        yield made


@pytest.fixture
def dockerd(dockyard: Dockerd) -> Iterator[Dockerd]:
    """The dockerd, without containers, networks, volumes and images but busybox."""
    yield dockyard
    dockyard.revive()
    dockyard.clear()
