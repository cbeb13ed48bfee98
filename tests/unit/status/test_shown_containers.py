from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.containers.model import Facts
from orlop.errors import Unavailable
from orlop.status.containers import Containers
from orlop.tally import Counter
from orlop.wire.task_types_pb2 import RUNNING


class NoForks:
    """A fork server that cannot: short of memory, say."""

    workers = Counter("name")

    def spawn(
        self, entry: str, args: Mapping[str, Any], fds: Sequence[int] = (), *, name: str
    ) -> int:
        raise Unavailable(f"fork {name}: no memory")


class AnyTask:
    namespace, pid, exit = "ns", 1, None
    known = SimpleNamespace(status=RUNNING)
    shim = SimpleNamespace(own=True)

    def __init__(self, id: str) -> None:
        self.id = id


def test_without_workers_what_is_lost_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    tasks: Any = SimpleNamespace(everything=lambda: [AnyTask("a"), AnyTask("b")])
    facts = {("ns", each): Facts("image", "runtime", "overlayfs", "key", {}) for each in "abc"}
    records: Any = SimpleNamespace(facts=lambda _: facts)
    found, lost = Containers(NoForks(), tasks, records, Path("/none")).all()
    assert lost == 2
    assert [(each.id, each.use) for each in found] == [("a", None), ("b", None), ("c", None)]
    assert "cannot look at 2 containers" in caplog.text
    assert "no memory" in caplog.text
