"""The namespaces of others in a task's spec."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.runtime.sharing import LABEL, Shared

_SPEC = {
    "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]},
    "mounts": [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["rw"]}],
}


def _made(label: str, pid: int) -> Shared:
    container: Any = SimpleNamespace(id="two", labels={LABEL: label})
    return Shared(
        "ns", container, json.dumps(_SPEC).encode(), Path("/b"),
        lambda namespace, name: pid if (namespace, name) == ("ns", "one") else 0,
    )  # fmt: skip


def _shared(label: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_made(label, os.getpid()).spec)
    return found


def test_it_is_another_s() -> None:
    found = _shared('{"pid": "one"}')
    assert {"type": "pid", "path": f"/proc/{os.getpid()}/ns/pid"} in found["linux"]["namespaces"]
    assert len(found["linux"]["namespaces"]) == 3
    assert found["mounts"] == _SPEC["mounts"]
    found = _shared('{"ipc": "one"}')
    assert {"type": "ipc", "path": f"/proc/{os.getpid()}/ns/ipc"} in found["linux"]["namespaces"]
    assert found["mounts"][0]["source"] == "/b/shm"


def test_who_does_not_run_shares_nothing() -> None:
    with pytest.raises(FailedPrecondition, match="whose pid namespace is shared, does not run"):
        _shared('{"pid": "three"}')


def test_who_ends_meanwhile_is_not_joined_by_the_number_of_another() -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        shared = _made('{"pid": "one", "ipc": "one"}', other.pid)
        shared.check()
        other.kill()
        other.wait()
        with pytest.raises(FailedPrecondition, match="has just ended"):
            shared.check()
        with pytest.raises(FailedPrecondition, match="does not run"):
            _made('{"pid": "one"}', other.pid)


@pytest.mark.parametrize("label", ["", "x", "[]", '["pid"]', '{"net": "one"}', '{"pid": 1}'])
def test_labels_that_make_no_sense(label: str) -> None:
    with pytest.raises(InvalidArgument, match="is no object of pid and ipc"):
        _shared(label)
