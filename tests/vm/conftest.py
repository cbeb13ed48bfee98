"""Outside of the virtual machine there is nothing to collect here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving
from tests.vm.boxes import Boxes

INSIDE = Path("/etc/orlop-vm").exists()
collect_ignore_glob = [] if INSIDE else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Orlopd]:
    """One daemon for all that do not harm it, as one takes seconds to start in there."""
    yield from serving()


@pytest.fixture(scope="session")
def boxes(shared_daemon: Orlopd) -> Boxes:
    return Boxes(shared_daemon)
