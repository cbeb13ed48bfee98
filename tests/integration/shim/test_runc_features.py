"""What runC does for a container besides running it: hooks, filters of system calls, options."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from orlop import errors
from orlop.wire.runc_pb2 import Options
from tests.integration.shim.harness import NAMESPACE, Shim, leftovers
from tests.integration.shim.test_lifecycle import packed, waited

pytestmark = pytest.mark.root

HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
NOTHING: dict[str, list[str]] = {"mounts": [], "cgroups": [], "runc": []}
# linux/seccomp.h: struct seccomp_notif is 80 bytes, its answer 24.
_RECEIVE, _SEND = 0xC0502100, 0xC0182101


def create(shim: Shim, args: list[str], **document: Any) -> int:
    """A container whose spec has more at its top level."""
    bundle = shim.bundle("one", args, **document.pop("linux", {}))
    found = json.loads((bundle / "config.json").read_text())
    found["mounts"] += document.pop("mounts", [])
    (bundle / "config.json").write_text(json.dumps({**found, **document}))
    mount = {"type": "bind", "source": str(shim.rootfs), "options": ["rbind", "ro"]}
    return int(shim.client.create(id="one", bundle=str(bundle), rootfs=[mount]).pid)


def run(shim: Shim) -> int:
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    return waited(waiting.result(20))


def noting(path: Path, name: str) -> dict[str, Any]:
    return {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"echo {name} >>{path}/log; cat >{path}/{name}"],
    }


def test_all_hooks_run(shim: Shim, folder: Path) -> None:
    marks = folder / "marks"
    marks.mkdir()
    hooks = {name: [noting(marks, name)] for name in HOOKS}
    inside = {"destination": "/tmp", "source": str(marks), "options": ["bind"]}
    hooks["startContainer"] = [noting(Path("/tmp"), "startContainer")]
    pid = create(shim, ["true"], hooks=hooks, mounts=[inside])
    assert (marks / "log").read_text().split()[:3] == list(HOOKS[:3])
    assert run(shim) == 0
    shim.client.delete(id="one")
    ran = (marks / "log").read_text().split()
    # runc 1.1 calls "after the start" what is after the creation.
    assert (sorted(ran), ran[-1]) == (sorted(HOOKS), "poststop")
    for name in HOOKS:
        state = json.loads((marks / name).read_text())
        assert state["id"] == "one", name
        assert state["bundle"] == str(folder / "one")
    assert json.loads((marks / "poststart").read_text())["pid"] == pid


@pytest.mark.parametrize("name", HOOKS[:3])
def test_a_hook_that_fails_stops_the_creation(shim: Shim, name: str) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo no wind >&2; exit 3"]}
    with pytest.raises(errors.Unknown, match=r"OCI runtime create failed.*hook #0.*no wind"):
        create(shim, ["true"], hooks={name: [hook]})
    assert leftovers(shim.folder) == NOTHING
    with pytest.raises(errors.NotFound):
        shim.client.state(id="one")


def test_a_hook_that_hangs_is_given_up(shim: Shim) -> None:
    hook = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    with pytest.raises(errors.Unknown, match="hook ran past specified timeout"):
        create(shim, ["true"], hooks={"createRuntime": [hook]})
    assert leftovers(shim.folder) == NOTHING


def test_a_hook_at_the_start_that_fails(shim: Shim) -> None:
    """The process is not run, and ends as one that failed."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
    create(shim, ["true"], hooks={"startContainer": [hook]})
    waiting = shim.client.begin("wait", id="one")
    try:
        shim.client.start(id="one")
    except errors.Unknown as error:
        assert "OCI runtime start failed" in str(error)
    assert waited(waiting.result(20)) != 0
    shim.client.delete(id="one")
    assert leftovers(shim.folder) == NOTHING


def test_a_hook_at_the_end_that_fails_keeps_nothing(shim: Shim) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
    create(shim, ["true"], hooks={"poststop": [hook]})
    assert run(shim) == 0
    shim.client.delete(id="one")
    assert leftovers(shim.folder) == NOTHING


def test_a_call_that_is_denied(shim: Shim) -> None:
    denied = {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}  # EDQUOT
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]}
    create(shim, ["sh", "-c", "kill -0 1 || exit 9"], linux={"seccomp": profile})
    assert run(shim) == 9
    shim.client.delete(id="one")


def test_a_call_that_a_listener_answers(shim: Shim, folder: Path) -> None:
    """Who listens at the path of the profile gets each call, and says what comes of it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "notify.sock"))
    listener.listen()
    heard: list[dict[str, Any]] = []

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            told, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        heard.append(json.loads(told))
        call = bytearray(80)
        fcntl.ioctl(fds[0], _RECEIVE, call)
        (number,) = struct.unpack_from("Q", call)
        fcntl.ioctl(fds[0], _SEND, bytearray(struct.pack("QqiI", number, 0, -122, 0)))
        os.close(fds[0])

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(folder / "notify.sock"),
        "listenerMetadata": "deck",
        "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_NOTIFY"}],
    }
    create(shim, ["sh", "-c", "kill -0 1 || exit 9"], linux={"seccomp": profile})
    assert run(shim) == 9
    thread.join(60)
    listener.close()
    assert (heard[0]["metadata"], heard[0]["state"]["id"]) == ("deck", "one")
    shim.client.delete(id="one")


def test_nobody_listens(shim: Shim, folder: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(folder / "nobody.sock"),
        "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_NOTIFY"}],
    }
    with pytest.raises(errors.Unknown, match=r"nobody\.sock"):
        create(shim, ["true"], linux={"seccomp": profile})
    assert leftovers(shim.folder) == NOTHING


def test_no_pivot_root(shim: Shim) -> None:
    shim.create("one", ["sh", "-c", "test -e /bin/busybox"],
                options=packed(Options(no_pivot_root=True)))  # fmt: skip
    assert run(shim) == 0
    shim.client.delete(id="one")


def test_a_cgroup_for_the_shim(shim: Shim) -> None:
    path = f"/{NAMESPACE}-shims/deep"
    shim.create("one", ["true"], options=packed(Options(shim_cgroup=path)))
    where = Path(f"/proc/{shim.pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(path) for line in where if ":name=" not in line and "0::" not in line)
    assert run(shim) == 0
    shim.client.delete(id="one")
    shim.fall_asleep()  # the hand is in there as well
    for top in Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}-shims"):
        (top.parent / "cgroup.procs").write_text(f"{shim.pid}")
        (top / "deep").rmdir()
        top.rmdir()


def test_owners_of_pipes(shim: Shim) -> None:
    pid = shim.create("one", ["sleep", "1000"], options=packed(Options(io_uid=7, io_gid=8)),
                      stdin=shim.fifo("in"))  # fmt: skip
    info = Path(f"/proc/{pid}/fd/0").stat()
    assert info.st_gid == 8
    assert info.st_uid in (0, 7)  # runc gives it to the user
    shim.finish("one")


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="for hosts without systemd")
def test_systemd_cgroups_without_systemd(shim: Shim) -> None:
    with pytest.raises(errors.Unknown, match="systemd not running on this host"):
        shim.create("one", ["true"], options=packed(Options(systemd_cgroup=True)),
                    cgroupsPath="system.slice:orlop:one")  # fmt: skip
    assert leftovers(shim.folder) == NOTHING


def test_what_this_host_lacks_is_told(shim: Shim) -> None:
    """Passed through to runc, which knows what the host can do."""
    if not Path("/sys/fs/resctrl/schemata").exists():
        with pytest.raises(errors.Unknown, match=r"(?i)rdt"):
            create(shim, ["true"], linux={"intelRdt": {"l3CacheSchema": "L3:0=f"}})
        assert leftovers(shim.folder) == NOTHING


def test_a_user_namespace(shim: Shim, folder: Path) -> None:
    """Root inside is nobody outside; the files of its root are what it maps."""
    folder.chmod(0o711)
    ids = [{"containerID": 0, "hostID": 200_000, "size": 65536}]
    pid = shim.create("one", ["sh", "-c", "cat /proc/self/uid_map; sleep 60"],
                      namespaces=("pid", "ipc", "uts", "mount", "network", "user"),
                      uidMappings=ids, gidMappings=ids)  # fmt: skip
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", "200000", "65536"]
    shim.client.start(id="one")
    assert Path(f"/proc/{pid}").stat().st_uid == 200_000
    shim.finish("one")
