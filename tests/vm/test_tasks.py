"""Tasks on pure cgroup v2."""

from __future__ import annotations

import pytest

from tests.daemon_fixture import Orlopd


@pytest.mark.short
def test_ctr_runs_a_container(orlopd: Orlopd, busybox: str) -> None:
    done = orlopd.ctr("run", "--rm", "--memory-limit", "67108864", busybox, "job", "echo", "ahoy")
    assert done.stdout == "ahoy\n"
