"""`orlop events` shows whatever comes: anybody may publish anything."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from orlop.cli.commands import events
from orlop.rpc.convert import pack
from orlop.wire import events_pb2
from orlop.wire.types_pb2 import Envelope

_EXIT = "containerd.events.TaskExit"
_LATE = Timestamp(seconds=10**13)


def _shown(capsys: pytest.CaptureFixture[str], *envelopes: Envelope, as_json: bool = True) -> str:
    connection: Any = SimpleNamespace(events=SimpleNamespace(subscribe=lambda _: envelopes))
    args: Any = SimpleNamespace(filters=[], json=as_json)
    assert events.run(args, connection) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "event",
    [
        AnyMessage(type_url="nobody.knows.DESCRIPTOR", value=b"\1\2"),
        AnyMessage(type_url="mine.TaskExit", value=b"\1\2"),
        AnyMessage(type_url=_EXIT, value=b"\xff"),
        pack(events_pb2.TaskExit(container_id="c", exited_at=_LATE)),
    ],
    ids=["descriptor", "same last name", "no message", "late within"],
)
def test_an_odd_event_is_shown_by_type_and_bytes(
    capsys: pytest.CaptureFixture[str], event: AnyMessage
) -> None:
    good = Envelope(topic="/good", event=pack(events_pb2.TaskExit(container_id="c")))
    odd, after = _shown(capsys, Envelope(topic="/odd", event=event), good).splitlines()
    assert set(json.loads(odd)["event"]) == {"type", "value"}
    assert json.loads(after)["event"] == {"container_id": "c"}


@pytest.mark.parametrize("seconds", [10**13, -(10**13), 2**62])
def test_a_time_that_no_calendar_has(capsys: pytest.CaptureFixture[str], seconds: int) -> None:
    stamp = Timestamp(seconds=seconds)
    line = _shown(capsys, Envelope(topic="/t", timestamp=stamp), as_json=False)
    assert line.startswith(f"{seconds}.000 ")


def test_options_of_whatever_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    options = AnyMessage(type_url="who.knows/What", value=b"\1")
    runtime = events_pb2.ContainerCreate.Runtime(name="x", options=options)
    event = pack(events_pb2.ContainerCreate(id="c", runtime=runtime))
    assert json.loads(_shown(capsys, Envelope(topic="/t", event=event)))["event"] == {
        "id": "c",
        "runtime": {"name": "x", "options": {"type": "What", "value": "AQ=="}},
    }
