"""Which daemon a command asks, and who keeps the namespaces of a user's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.cli import rootless
from orlop.cli.main import main

SCRIPT = Path(__file__).parents[3] / "packaging/orlopd-rootless"
SYSTEMS = "/run/orlop/orlop.sock"
USER = 1000

As = Callable[[int], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> As:
    return lambda uid: monkeypatch.setattr(os, "geteuid", lambda: uid)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What would be the socket of the user's own daemon."""
    monkeypatch.delenv("ORLOP_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "orlop").mkdir()
    return tmp_path / "orlop/orlop.sock"


def test_the_daemon_of_the_user(own: Path, become: As, monkeypatch: pytest.MonkeyPatch) -> None:
    become(USER)
    assert rootless.default_address() == SYSTEMS
    own.touch()
    assert rootless.default_address() == str(own)
    monkeypatch.setenv("ORLOP_ADDRESS", "/elsewhere.sock")
    assert rootless.default_address() == "/elsewhere.sock"
    monkeypatch.setenv("ORLOP_ADDRESS", "")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert rootless.default_address() == SYSTEMS


def test_the_environment_of_somebody_else(
    own: Path, become: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `sudo -E` makes of it; inside a user namespace see the integration tests."""
    own.touch()
    become(0)
    monkeypatch.setattr("orlop.sys.process.in_user_namespace", lambda: False)
    assert rootless.default_address() == SYSTEMS


def _namespace(pid: int | str = "self") -> str:
    return str(Path(f"/proc/{pid}/ns/user").readlink())


def _descriptors() -> set[str]:
    """Those that are open, but for the one that this takes to see them."""
    shown = {entry.name: entry for entry in Path("/proc/self/fd").iterdir()}
    return {name for name, entry in shown.items() if entry.exists()}


def test_the_holder(own: Path) -> None:
    (own.parent / "holder").write_text(f"{os.getpid()} {_namespace()}\n")
    holder = rootless._holder(str(own.parent))
    assert holder is not None
    assert f"Pid:\t{os.getpid()}\n" in Path(f"/proc/self/fdinfo/{holder}").read_text()
    os.close(holder)


@pytest.mark.parametrize("text", [
    "", "\n", "words that say nothing", "17", "0 user:[1]", "-1 user:[1]", "9" * 30 + " user:[1]",
    "{self} user:[1]", "{dead} {namespace}", "\xff\xfe",
])  # fmt: skip
def test_no_holder(text: str, own: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    shown = text.format(self=os.getpid(), dead=process.pid, namespace=_namespace())
    (own.parent / "holder").write_bytes(shown.encode("latin-1"))
    before = _descriptors()
    assert rootless._holder(str(own.parent)) is None
    assert _descriptors() <= before  # threads of others may end


def test_no_holder_at_all(own: Path) -> None:
    assert rootless._holder(str(own.parent)) is None
    assert rootless._holder(str(own.parent / "nowhere")) is None


def test_refused(own: Path, become: As, capsys: pytest.CaptureFixture[str]) -> None:
    """A process cannot join the user namespace that it is in (setns(2))."""
    become(USER)
    (own.parent / "holder").write_text(f"{os.getpid()} {_namespace()}\n")
    before = _descriptors()
    assert main(["-a", str(own), "ps"]) == 1
    refused = f"orlop: cannot join the namespaces of the orlopd at {own}: Invalid argument"
    assert capsys.readouterr().err.splitlines() == [refused]
    assert _descriptors() <= before  # threads of others may end


def test_the_script_without_a_daemon(own: Path) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(own.parent.parent)}
    wanted = {"XDG_RUNTIME_DIR names no folder": {}, "orlopd has not been started": runtime}
    for message, environment in wanted.items():
        assert message in _entered(environment)
    (own.parent / "holder").write_text("\n")
    assert "orlopd has not been started" in _entered(runtime)
    (own.parent / "holder").write_text("0\n")
    assert "orlopd has not been started" in _entered(runtime)


def _entered(environment: dict[str, str]) -> str:
    """What the script says when there is nothing to enter."""
    done = subprocess.run(
        [SCRIPT, "--enter", "true"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line
