"""Outside of the virtual machine there is nothing to collect here."""

from __future__ import annotations

from pathlib import Path

import pytest

INSIDE = Path("/etc/orlop-vm").exists()
collect_ignore_glob = [] if INSIDE else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
