"""What containers use, and may use, by the orlop command."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def test_a_container_that_runs_out_of_memory(orlopd: Orlopd, busybox: str) -> None:
    limits = ("-m", "16m", "--memory-swap", "16m")
    script = "tail /dev/zero"
    done = orlopd.orlop(
        "run", "--name", "hungry", *limits, busybox, "sh", "-c", script, check=False
    )
    assert done.returncode == 137
    template = "{{.State.OOMKilled}} {{.State.ExitCode}}"
    orlopd.wait_for(
        lambda: orlopd.orlop("inspect", "-f", template, "hungry").stdout == "true 137\n"
    )
    assert "(OOM killed)" in orlopd.orlop("ps", "-a").stdout
    orlopd.orlop("rm", "hungry")


@pytest.fixture
def busy(orlopd: Orlopd, busybox: str) -> Iterator[str]:
    orlopd.orlop("run", "-d", "--name", "busy", "-m", "64m", "--pids-limit", "50", busybox,
                 "sh", "-c", "while :; do :; done")  # fmt: skip
    yield "busy"
    orlopd.orlop("rm", "-f", "busy")


def test_stats(orlopd: Orlopd, busy: str, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "idle", busybox, "sleep", "1000")
    rows = orlopd.orlop("stats", "--no-stream").stdout.splitlines()
    titles = "CONTAINER ID NAME CPU MEMORY LIMIT NET I/O BLOCK I/O PIDS"
    assert rows[0].split() == titles.split()
    assert [row.split()[0] for row in rows[1:]] == [busy, "idle"]
    lines = orlopd.orlop("stats", "--no-stream", "--format", "json").stdout.splitlines()
    first, second = map(json.loads, lines)
    assert 0.02 < first["cpu"] < 4  # one process, and clocks that are read one by one
    assert second["cpu"] < first["cpu"]
    assert first["memory_limit"] == 64 << 20
    assert 0 < first["memory"] < 64 << 20
    assert second["memory_limit"] == 0
    assert (first["pids"], first["pids_limit"]) == (1, 50)
    only = orlopd.orlop("stats", "--no-stream", "idle").stdout.splitlines()
    assert [row.split()[0] for row in only[1:]] == ["idle"]
    orlopd.orlop("kill", "idle")
    orlopd.orlop("wait", "idle")
    orlopd.orlop("rm", "idle")
    assert orlopd.orlop("stats", "--no-stream", "idle", check=False).returncode == 1


def _facts(orlopd: Orlopd, name: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        orlopd.orlop("stats", "--no-stream", "--format", "json", name).stdout
    )
    return found


def test_update(orlopd: Orlopd, busy: str) -> None:
    assert orlopd.orlop("update", "-m", "96m", "--pids-limit", "60", busy).stdout == f"{busy}\n"
    facts = _facts(orlopd, busy)
    assert (facts["memory_limit"], facts["pids_limit"]) == (96 << 20, 60)
    orlopd.orlop("restart", "-t", "0.1", busy)
    facts = _facts(orlopd, busy)  # it is in the record as well
    assert (facts["memory_limit"], facts["pids_limit"]) == (96 << 20, 60)
    orlopd.orlop("stop", "-t", "0.1", busy)
    orlopd.orlop("update", "-m", "80m", busy)
    orlopd.orlop("start", busy)
    assert _facts(orlopd, busy)["memory_limit"] == 80 << 20
    for flags, words in (
        ((), "nothing to change"),
        (("--memory-swap", "1g"), "needs --memory"),
        (("--cpuset-cpus", "999"), "cpuset"),
    ):
        refused = orlopd.orlop("update", *flags, busy, check=False)
        assert refused.returncode != 0
        assert words in refused.stderr
    assert orlopd.orlop("update", "-m", "80m", "nobody", check=False).returncode == 1
