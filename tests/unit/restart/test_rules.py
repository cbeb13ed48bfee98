from __future__ import annotations

import pytest

from orlop.errors import InvalidArgument
from orlop.restart.rules import COUNT, EXPLICITLY_STOPPED, POLICY, STATUS, parse

RUNNING = {STATUS: "running"}


@pytest.mark.parametrize(
    ("labels", "status", "again"),
    [
        ({}, 0, True),
        ({POLICY: "always", EXPLICITLY_STOPPED: "true"}, 0, True),
        ({POLICY: "no"}, 1, False),
        ({POLICY: "unless-stopped"}, 0, True),
        ({POLICY: "unless-stopped", EXPLICITLY_STOPPED: "false"}, 0, True),
        ({POLICY: "unless-stopped", EXPLICITLY_STOPPED: "true"}, 1, False),
        ({POLICY: "on-failure"}, 0, False),
        ({POLICY: "on-failure", COUNT: "1000"}, 1, True),
        ({POLICY: "on-failure:3", COUNT: "2"}, 137, True),
        ({POLICY: "on-failure:3", COUNT: "3"}, 137, False),
    ],
)
def test_whether_to_start_again(labels: dict[str, str], status: int, again: bool) -> None:
    rules = parse({**RUNNING, **labels})
    assert rules is not None
    assert rules.wanted
    assert rules.again(status) is again


def test_containers_that_are_not_watched() -> None:
    assert parse({POLICY: "always"}) is None
    assert parse({STATUS: "paused"}) is None
    stopped = parse({STATUS: "stopped"})
    assert stopped is not None
    assert not stopped.wanted


@pytest.mark.parametrize(
    "labels",
    [{POLICY: "often"}, {POLICY: "always:3"}, {POLICY: "on-failure:x"}, {POLICY: "on-failure:-1"},
     {POLICY: "on-failure:"}, {COUNT: "many"}, {COUNT: "²"}],
)  # fmt: skip
def test_labels_that_make_no_sense(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=r"containerd\.io/restart\."):
        parse({**RUNNING, **labels})
