"""orlopd of a user who is not root, by the script that the project ships."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.layered_image import build
from tests.patience import patient
from tests.vm.boxes import CGROUPS
from tests.vm.disk import CHECKOUT

USER = "sailor"
SCRIPT = CHECKOUT / "packaging/orlopd-rootless"
PROGRAMS = CHECKOUT / ".venv/bin"


class Sailor:
    """A user with a systemd of their own, and what they run."""

    def __init__(self) -> None:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
        subprocess.run(["loginctl", "enable-linger", USER], check=True)
        found = pwd.getpwnam(USER)
        self.home, self.uid = Path(found.pw_dir), found.pw_uid
        self.runtime = Path(f"/run/user/{found.pw_uid}")
        Orlopd.wait_for((self.runtime / "bus").exists, 60)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._log = Path("/tmp/rootless.log")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._as_user(*command),
            capture_output=True, text=True, check=False, timeout=patient(60),
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}: {done.stderr}\n{self._log.read_text()}"
        return done

    def orlop(self, *arguments: str, check: bool = True) -> str:
        return self.run(str(PROGRAMS / "orlop"), *arguments, check=check).stdout

    def inside(self, *command: str) -> str:
        """What a command prints that runs among the daemon's mounts."""
        return self.run(str(SCRIPT), "--enter", *command).stdout

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(self._as_user(str(SCRIPT)), stdout=log, stderr=log)
        Orlopd.wait_for(self._serves, 30)

    def _serves(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.poll() is None, self._log.read_text()
        return self._log.read_text().count("serving on") > self._log.read_text().count("stopped")

    def stop(self) -> None:
        assert self._daemon is not None
        self._daemon.terminate()
        assert self._daemon.wait(patient(10)) == 0, self._log.read_text()

    def _as_user(self, *command: str) -> list[str]:
        env = {
            "HOME": str(self.home),
            "ORLOPD": str(PROGRAMS / "orlopd"),
            "PATH": os.environ["PATH"],
            "XDG_RUNTIME_DIR": str(self.runtime),
        }
        become = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups"]
        return [*become, "env", "-i", *(f"{key}={value}" for key, value in env.items()), *command]


@pytest.fixture(scope="module")
def sailor() -> Iterator[Sailor]:
    _let_in(CHECKOUT)  # which may be at home in root's
    made = Sailor()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def image(sailor: Sailor, busybox_archive: Path) -> str:
    sailor.orlop("load", "-i", str(busybox_archive))
    return BUSYBOX


def _let_in(folder: Path) -> None:
    """Let everybody get at a folder."""
    for each in (folder, *folder.parents):
        each.chmod(each.stat().st_mode | 0o011)


def _pid(sailor: Sailor, name: str) -> int:
    return int(sailor.orlop("inspect", "-f", "{{.State.Pid}}", name))


@pytest.mark.short
def test_root_inside_is_the_user_outside(sailor: Sailor, image: str) -> None:
    assert sailor.orlop("run", "--rm", image, "id", "-u") == "0\n"
    refused = sailor.run(str(PROGRAMS / "orlop"), "run", "--rm", image, "no-such", check=False)
    assert refused.returncode == 127
    assert "executable file not found" in refused.stderr


def test_what_the_host_mounts_and_unmounts(sailor: Sailor, image: str, tmp_path: Path) -> None:
    """No disk is missed that comes later, and none is held back from going."""
    _let_in(tmp_path)
    tmp_path.chmod(0o755)  # to be listed when nothing is mounted on it
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    (tmp_path / "chart").touch()
    show = ("run", "--rm", "-v", f"{tmp_path}:/data", image, "ls", "/data")
    try:
        assert sailor.orlop(*show) == "chart\n"
        assert str(tmp_path) in sailor.inside("cat", "/proc/self/mountinfo")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert str(tmp_path) not in sailor.inside("cat", "/proc/self/mountinfo")
    assert sailor.orlop(*show) == ""


def test_the_command_inside(sailor: Sailor, image: str) -> None:
    shown = sailor.inside(str(PROGRAMS / "orlop"), "run", "--rm", image, "echo", "ahoy")
    assert shown == "ahoy\n"


def test_from_a_folder_that_is_gone(sailor: Sailor) -> None:
    gone = "cd; mkdir gone; cd gone; rmdir ../gone; exec " + str(PROGRAMS / "orlop")
    assert sailor.run("sh", "-c", f"{gone} ps -q").stdout == ""


def test_namespaces_of_the_host(sailor: Sailor, image: str) -> None:
    names = ("sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid")
    host = [str(Path(f"/proc/self/ns/{name}").readlink()) for name in ("net", "pid")]
    shown = sailor.orlop("run", "--rm", "--network", "host", "--pid", "host", image, *names)
    assert shown.split() == host


def test_containers_outlive_the_daemon_and_have_limits(sailor: Sailor, image: str) -> None:
    speaker = ("sh", "-c", "echo ahoy; exec sleep 1000")
    sailor.orlop("run", "-d", "--name", "web", "--memory", "64m", "--pids-limit", "50",
                 image, *speaker)  # fmt: skip
    pid = _pid(sailor, "web")
    assert Path(f"/proc/{pid}").stat().st_uid == sailor.uid
    cgroup = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")
    assert f"user@{sailor.uid}.service/app.slice/" in cgroup
    assert (CGROUPS / cgroup / "memory.max").read_text().strip() == str(64 << 20)
    sailor.orlop("update", "--memory", "32m", "--memory-swap", "64m", "web")
    assert (CGROUPS / cgroup / "memory.max").read_text().strip() == str(32 << 20)
    sailor.stop()
    sailor.start()
    assert _pid(sailor, "web") == pid
    assert sailor.orlop("exec", "web", "id", "-u") == "0\n"
    assert sailor.orlop("logs", "web") == "ahoy\n"
    sailor.orlop("pause", "web")
    sailor.orlop("unpause", "web")
    sailor.orlop("commit", "web", "web:2")
    sailor.orlop("rm", "-f", "web")
    assert not (CGROUPS / cgroup).exists()
    assert sailor.orlop("run", "--rm", "--memory", "64m", image, "echo", "again") == "again\n"


def test_other_clients_go_inside(sailor: Sailor, image: str) -> None:
    ctr = ("ctr", "--address", f"{sailor.runtime}/orlop/orlop.sock")
    assert sailor.inside(*ctr, "run", "--rm", image, "job", "id", "-u") == "0\n"


def test_layers_that_take_things_away(sailor: Sailor, tmp_path: Path) -> None:
    """Opaque folders by attributes that the user may set; devices are left out."""
    build(tmp_path / "layout", size=10_000)
    archive = sailor.home / "layered.tar"
    subprocess.run(["tar", "-C", tmp_path / "layout", "-cf", archive, "."], check=True)
    ctr = f"ctr --address {sailor.runtime}/orlop/orlop.sock images"
    name = "docker.io/library/layered"
    show = f"{ctr} mount {name}:latest tree >&2 && cd tree && ls old etc var && cat old/new/file"
    sailor.inside("sh", "-c", f"{ctr} import --base-name {name} {archive}")
    shown = sailor.inside("unshare", "--mount", "sh", "-c", f"cd; mkdir tree; {show}")
    assert shown.split() == [
        *("etc:", "conf", "pipe"), *("old:", "new"), *("var:", "keep", "marked"), "new",
    ]  # fmt: skip


def test_what_is_missing_is_named(sailor: Sailor, tmp_path: Path) -> None:
    def refused(*command: str) -> str:
        done = sailor.run("env", *command, str(SCRIPT), check=False)
        assert done.returncode == 1
        return done.stderr

    _let_in(tmp_path)
    assert f"enable-linger {USER}" in refused("-u", "XDG_RUNTIME_DIR")
    assert f"systemd of {USER} does not answer" in refused(f"XDG_RUNTIME_DIR={tmp_path}")
    for name, answer, message in (
        ("uname", "echo 5.10.0-8-amd64", "needs Linux 5.11"),
        ("unshare", "echo --map-root-user", "util-linux 2.38"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
        assert message in refused(f"PATH={tmp_path}:{os.environ['PATH']}")
        (tmp_path / name).unlink()
    for name in ("subuid", "subgid"):
        ranges = Path("/etc", name)
        kept = ranges.read_text()
        ranges.write_text(kept.replace(USER, "other"))
        assert f"no ids in /etc/{name}: usermod --add-{name}s" in refused()
        ranges.write_text(kept)


def test_the_configuration_is_the_users(sailor: Sailor) -> None:
    system, own = Path("/etc/orlop/config.toml"), sailor.home / ".config/orlop/config.toml"
    system.parent.mkdir(exist_ok=True)
    system.write_text("[log]\nlevel = 'error'\n")
    try:
        assert 'level = "info"' in _configuration(sailor)
        own.parent.mkdir(parents=True)
        own.write_text("[log]\nlevel = 'debug'\n")
        assert 'level = "debug"' in _configuration(sailor)
    finally:
        system.unlink()


def _configuration(sailor: Sailor) -> str:
    """Of a daemon that would be started now."""
    return sailor.run(str(SCRIPT), "config", "dump").stdout


def test_without_the_script(sailor: Sailor) -> None:
    refused = sailor.run(str(PROGRAMS / "orlopd"), check=False)
    assert refused.returncode == 1
    assert "must run as root" in refused.stderr
    assert "orlopd-rootless" in refused.stderr
