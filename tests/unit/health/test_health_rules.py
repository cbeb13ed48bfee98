"""Healthchecks and what their results mean."""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from orlop.cli import health_options
from orlop.errors import InvalidArgument
from orlop.health.files import StateFiles
from orlop.health.state import Health, Result
from orlop.health.timetable import Timetable
from orlop.oci.healthcheck import LABEL, SECOND, Healthcheck

CHECK = Healthcheck(("CMD", "true"), start_period=10 * SECOND, interval=SECOND * 7).defaulted()


def result(code: int, at: int = 100) -> Result:
    return Result(at * SECOND, at * SECOND + 1, code, "")


def after(*results: Result) -> Health:
    health = Health(7, 0)
    for each in results:
        health = health.after(each, CHECK)
    return health


def test_defaults() -> None:
    found = Healthcheck(("CMD", "true")).defaulted()
    assert (found.interval, found.timeout) == (30 * SECOND, 30 * SECOND)
    assert (found.start_period, found.start_interval, found.retries) == (0, 5 * SECOND, 3)


def test_streaks() -> None:
    assert after().status == "starting"
    assert after(result(0)).status == "healthy"
    assert after(result(1), result(1)).status == "starting"
    assert after(result(1), result(-1), result(2)).status == "unhealthy"
    assert after(result(0), result(1), result(1)).status == "healthy"
    sick = after(*[result(1)] * 4)
    assert (sick.status, sick.failing_streak) == ("unhealthy", 4)
    well = sick.after(result(0), CHECK)
    assert (well.status, well.failing_streak) == ("healthy", 0)


def test_failures_in_the_start_period_do_not_count() -> None:
    assert after(*[result(1, at=5)] * 9).failing_streak == 0
    assert after(result(1, at=9), result(1, at=10)).failing_streak == 1
    # Once it was well, they do.
    assert after(result(0, at=1), *[result(1, at=2)] * 3).status == "unhealthy"


def test_the_last_five_are_kept() -> None:
    health = after(*[result(0, at=number) for number in range(9)])
    assert [each.start // SECOND for each in health.results] == [4, 5, 6, 7, 8]


def test_pauses() -> None:
    assert Health(7, 0).pause(CHECK, SECOND) == 5 * SECOND
    assert Health(7, 0).pause(CHECK, 8 * SECOND) == 2 * SECOND
    assert Health(7, 0).pause(CHECK, 10 * SECOND) == 7 * SECOND
    assert Health(7, 0, "healthy").pause(CHECK, SECOND) == 7 * SECOND


def test_commands() -> None:
    assert Healthcheck(("CMD", "a", "b")).command == ["a", "b"]
    assert Healthcheck(("CMD-SHELL", "a | b")).command == ["/bin/sh", "-c", "a | b"]
    odd = Healthcheck(("CMD-SHELL", "a"), retries=4).with_shell(["/bin/ash", "-ec"])
    assert (odd.command, odd.retries) == (["/bin/ash", "-ec", "a"], 4)
    assert not Healthcheck(("NONE",)).wanted
    assert not Healthcheck().wanted


def test_labels_are_as_nerdctl_writes_them() -> None:
    check = Healthcheck(("CMD-SHELL", "true"), interval=SECOND, retries=2)
    assert json.loads(check.label) == {
        "Test": ["CMD-SHELL", "true"],
        "Interval": 1_000_000_000,
        "Retries": 2,
    }
    assert Healthcheck.of_label(check.label) == check


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"Test": "true"}', '{"Test": ["SHELL", "x"]}', '{"Test": ["CMD"]}',
     '{"Test": ["CMD-SHELL", " "]}', '{"Interval": "30s"}', '{"Retries": -1}', '{"Timeout": 5}',
     '{"Retries": true}', '{"Interval": 9223372036854775808}'],
)  # fmt: skip
def test_bad_labels(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Healthcheck.of_label(text)


def labels(*arguments: str, **config: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    health_options.configure(parser)
    found = health_options.labels(parser.parse_args(arguments), config)
    return json.loads(found[LABEL]) if found else {}


def test_options_over_the_image() -> None:
    image = {"Test": ["CMD", "ping"], "Interval": 5 * SECOND, "Timeout": SECOND}
    assert labels() == {}
    assert labels(Healthcheck=image) == image
    assert labels("--health-interval", "1m30s", Healthcheck=image)["Interval"] == 90 * SECOND
    own = labels("--health-cmd", "a | b", "--health-retries", "9", Healthcheck=image)
    assert own == {**image, "Test": ["CMD-SHELL", "a | b"], "Retries": 9}
    assert labels("--no-healthcheck", Healthcheck=image) == {}
    assert labels(Healthcheck={"Test": ["NONE"]}) == {}
    assert labels("--health-cmd", "a", Shell=["ash", "-c"])["Test"] == ["CMD", "ash", "-c", "a"]


@pytest.mark.parametrize(
    "arguments",
    [["--no-healthcheck", "--health-cmd", "x"], ["--health-interval", "1s"],
     ["--health-cmd", ""], ["--health-cmd", "x", "--health-retries", "-1"]],
)  # fmt: skip
def test_options_that_make_no_sense(arguments: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        labels(*arguments)


def test_files(tmp_path: Path) -> None:
    files, key = StateFiles(tmp_path / "health"), ("space", "one")
    assert files.load(key) is None
    health = after(result(0), result(1))
    files.save(key, health)
    assert files.load(key) == health
    assert list(files.keys()) == [key]
    (tmp_path / "health/space/one.json").write_text('{"pid": 1')
    assert files.load(key) is None
    files.remove(key)
    files.remove(key)
    assert list(files.keys()) == []


def test_timetable() -> None:
    table = Timetable()
    table.put(("a", "late"), 60)
    table.put(("a", "moved"), 60)
    table.put(("a", "dropped"), 0)
    table.drop(("a", "dropped"))
    table.put(("a", "moved"), 0)
    assert table.take() == ("a", "moved")
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(table.take()))
    thread.start()
    table.put(("a", "late"), 0.05)
    thread.join(10)
    assert taken == [("a", "late")]
    table.close()
    assert table.take() is None
