"""Starts, signals and removals without runc, and when runc must be asked all the same."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from orlop import errors
from orlop.rpc.convert import pack
from orlop.shim import shortcuts
from orlop.wire.runc_pb2 import Options
from orlop.wire.task_types_pb2 import Status
from tests.integration.shim.harness import NAMESPACE, RUNC_ROOT, Shim, wait_until
from tests.integration.shim.test_lifecycle import waited

pytestmark = pytest.mark.root


class Recorder:
    """A runtime that notes its commands and has runc do them."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "commands"
        self._program = folder / "recorder"
        self._program.write_text(
            "#!/bin/sh\n"
            f'for word; do case $word in create|start|kill|delete) echo $word >>"{self._notes}";'
            ' break;; esac; done\nexec runc "$@"\n'
        )
        self._program.chmod(0o755)

    @property
    def options(self) -> AnyMessage:
        return pack(Options(binary_name=str(self._program)))

    @property
    def commands(self) -> list[str]:
        return self._notes.read_text().split()


@pytest.fixture
def recorder(folder: Path) -> Recorder:
    return Recorder(folder)


def live(shim: Shim, recorder: Recorder, **changes: Any) -> int:
    """From create to delete, with a signal in the middle; the exit status."""
    shim.create("one", ["sleep", "1000"], options=recorder.options, **changes)
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    shim.client.kill(id="one", signal=9)
    status = waited(waiting.result(60))
    shim.client.delete(id="one")
    return status


def test_only_the_creation_takes_runc(shim: Shim, recorder: Recorder) -> None:
    assert live(shim, recorder) == 128 + signal.SIGKILL
    assert recorder.commands == ["create"]
    assert not Path(RUNC_ROOT, "one").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}/one"))


def test_a_shared_pid_namespace_is_left_to_runc(shim: Shim, recorder: Recorder) -> None:
    status = live(shim, recorder, namespaces=("ipc", "uts", "mount", "network"))
    assert status == 128 + signal.SIGKILL
    assert recorder.commands == ["create", "kill", "delete"]


def test_hooks_at_the_end_are_left_to_runc(shim: Shim, recorder: Recorder, folder: Path) -> None:
    mark = folder / "stopped"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >{mark}"]}
    create_with(shim, {"poststop": [hook]}, "true", options=recorder.options)
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    assert waited(waiting.result(60)) == 0
    shim.client.delete(id="one")
    assert recorder.commands == ["create", "delete"]
    assert json.loads(mark.read_text())["status"] == "stopped"


def test_a_signal_right_after_the_start_is_the_program_s(shim: Shim) -> None:
    """Not that of runc's init, which it would end: the first process of a pid namespace has
    nothing to fear from a signal that it does not handle."""
    hook = {"path": "/bin/sleep", "args": ["sleep", "0.3"]}  # which holds init up after the start
    create_with(shim, {"startContainer": [hook]}, "sleep", "1000")
    shim.client.start(id="one")
    shim.client.kill(id="one", signal=signal.SIGTERM)
    state = shim.client.state(id="one")
    assert state.status == Status.RUNNING
    assert Path(f"/proc/{state.pid}/comm").read_text() == "sleep\n"
    shim.finish("one")


def create_with(shim: Shim, hooks: dict[str, Any], *command: str, **options: Any) -> None:
    """A container with hooks."""
    bundle = shim.bundle("one", list(command))
    document = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**document, "hooks": hooks}))
    mount = {"type": "bind", "source": str(shim.rootfs), "options": ["rbind", "ro"]}
    shim.client.create(id="one", bundle=str(bundle), rootfs=[mount], **options)


def test_a_paused_container_is_killed_by_runc(shim: Shim, recorder: Recorder) -> None:
    shim.create("one", ["sleep", "1000"], options=recorder.options)
    shim.client.start(id="one")
    shim.client.pause(id="one")
    waiting = shim.client.begin("wait", id="one")
    shim.client.kill(id="one", signal=9)
    assert waited(waiting.result(60)) == 128 + signal.SIGKILL
    shim.client.delete(id="one")
    assert "kill" in recorder.commands


def test_a_signal_that_does_not_exist(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    shim.client.start(id="one")
    with pytest.raises(errors.Unknown, match="signal"):
        shim.client.kill(id="one", signal=99)
    shim.finish("one")


def test_an_init_that_died_before_its_start(shim: Shim) -> None:
    pid = shim.create("one", ["true"])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    with pytest.raises(errors.OrlopError, match=r"cannot start|dead|stopped"):
        shim.client.start(id="one")
    shim.client.delete(id="one")


def test_cgroups_within_the_container_are_left_to_runc(shim: Shim, recorder: Recorder) -> None:
    shim.create("one", ["true"], options=recorder.options)
    for group in Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}/one"):
        (group / "inner").mkdir()
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    waiting.result(60)
    shim.client.delete(id="one")
    assert recorder.commands == ["create", "delete"]


PLAIN: dict[str, Any] = {
    "init_process_pid": 7,
    "init_process_start": 1,
    "cgroup_paths": {},
    "namespace_paths": {},
    "intel_rdt_path": "",
    "config": {"namespaces": [{"type": "NEWPID", "path": ""}], "cgroups": {}, "Hooks": None},
}


def config(**changes: Any) -> dict[str, Any]:
    return {"config": {**PLAIN["config"], **changes}}


@pytest.mark.parametrize(
    "changes",
    [
        {"init_process_pid": 8},
        {"intel_rdt_path": "/sys/fs/resctrl/one"},
        {"rootless": True},
        {"cgroup_paths": {"pids": "/elsewhere/pids/one"}},
        config(Hooks={"poststop": [{"path": "/bin/true"}]}),
        config(hooks={"poststop": [{"path": "/bin/true"}]}),
        config(cgroups={"Systemd": True}),
        config(cgroups={"systemd": True}),
        config(namespaces=[{"type": "NEWPID", "path": "/proc/1/ns/pid"}]),
        config(namespaces=[]),
        config(net_devices={"eth0": {"name": "eth1"}}),
    ],
)
def test_states_that_are_not_removed_here(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({**PLAIN, **changes}))
    assert not shortcuts.delete(str(folder), 7)
    assert (folder / "state.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"id": "one", "pid": 7}), "\udcff"])
def test_states_of_other_runtimes(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_bytes(text.encode(errors="surrogateescape"))
    assert not shortcuts.is_libcontainer(str(tmp_path), 7)
    assert not shortcuts.delete(str(tmp_path), 7)


def test_a_plain_state_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps(PLAIN))
    assert shortcuts.delete(str(folder), 7)
    assert not folder.exists()
