"""The short forms of the soak; `make soak` runs the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import soak

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


def test_random_verbs_by_eight_clients(busybox_archive: Path) -> None:
    ledger = soak(busybox_archive, seconds=12, clients=8, seed=1)
    assert ledger.faults == []
    assert ledger.steps > 50


@pytest.mark.slow
def test_random_kills_under_load(busybox_archive: Path) -> None:
    ledger = soak(busybox_archive, seconds=0, clients=4, seed=2, kills=40)
    assert ledger.faults == []
    assert sum(ledger.kills.values()) > 20
