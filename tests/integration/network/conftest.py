"""Fixtures: a network of the test's own, in which no host's interface is seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.fork.client import ForkServer
from orlop.network import Kernel, PinnedNamespaces
from tests.integration.network.lab import Lab, own_network


@pytest.fixture
def lab() -> Iterator[Lab]:
    """This thread, and what it starts, is in a network namespace of the test's own meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_network() as made:
        yield made


@pytest.fixture
def kernel(lab: Lab) -> Iterator[Kernel]:
    """The library, at home in the test's namespace."""
    forks = ForkServer(("orlop.fork.worker",))
    forks.start()
    made = Kernel(forks, idle=1.0)
    yield made
    made.close()
    forks.stop()


@pytest.fixture
def pins(kernel: Kernel, tmp_path: Path) -> Iterator[PinnedNamespaces]:
    """Named namespaces, all gone at the end."""
    made = PinnedNamespaces(tmp_path / "netns", kernel)
    yield made
    for name in made.names("test"):
        made.delete("test", name)
