"""Nothing is collected outside of the virtual machine, in there what its cgroups are for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving
from tests.vm.boxes import Boxes, Make, options

INSIDE = Path("/etc/orlop-vm").exists()
HYBRID = Path("/sys/fs/cgroup/unified").exists()
if not INSIDE:
    collect_ignore_glob = ["test_*.py"]
elif HYBRID:
    collect_ignore_glob = ["test_[!h]*.py"]
else:
    collect_ignore_glob = ["test_hybrid.py"]


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


@pytest.fixture(params=["cgroupfs", "systemd"])
def make(request: pytest.FixtureRequest, boxes: Boxes) -> Iterator[Make]:
    """Makes containers whose cgroups one driver or the other keeps; nothing of them may stay."""
    if request.param == "cgroupfs":
        yield boxes.box
    else:
        yield lambda *args, **changes: boxes.box(
            *args,
            options=options(systemd_cgroup=True),
            cgroups_path="system.slice:orlop:{id}",
            **changes,
        )
    boxes.daemon.wait_for(lambda: not boxes.cgroups())
