import threading
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import InvalidArgument
from orlop.oci.seccomp import default_profile
from orlop.oci.spec import (
    ALL_CAPABILITIES,
    DEFAULT_CAPABILITIES,
    Bind,
    ContainerSpec,
    build,
)
from orlop.oci.spec_resources import host_devices
from orlop.oci.users import User


def _build(**wanted: Any) -> dict[str, Any]:
    return build(ContainerSpec(args=["true"], **wanted))


def test_the_default_is_tight() -> None:
    spec = _build()
    assert set(spec["process"]["capabilities"]["bounding"]) == set(DEFAULT_CAPABILITIES)
    assert "inheritable" not in spec["process"]["capabilities"]
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert "/proc/sys" in spec["linux"]["readonlyPaths"]
    assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert spec["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    sysfs = next(m for m in spec["mounts"] if m["destination"] == "/sys")
    assert "ro" in sysfs["options"]
    kinds = {namespace["type"] for namespace in spec["linux"]["namespaces"]}
    assert kinds == {"pid", "ipc", "uts", "mount", "network"}


def test_host_network_shares_the_namespace() -> None:
    kinds = {n["type"] for n in _build(network="host")["linux"]["namespaces"]}
    assert "network" not in kinds
    with pytest.raises(InvalidArgument, match='"bridge"'):
        _build(network="bridge")


def test_who_is_root_in_a_user_namespace_only_mounts_no_view_of_the_host() -> None:
    def types(**wanted: Any) -> list[str]:
        mounts = {mount["destination"]: mount for mount in _build(**wanted)["mounts"]}
        return [mounts[target]["type"] for target in ("/sys", "/proc")]

    assert types(rootless=True) == ["sysfs", "proc"]
    host = {"network": "host", "host_namespaces": frozenset({"pid"})}
    assert types(**host) == ["sysfs", "proc"]
    assert types(**host, rootless=True) == ["bind", "bind"]


def test_capabilities_are_added_and_dropped() -> None:
    def bounding(**wanted: Any) -> set[str]:
        return set(_build(**wanted)["process"]["capabilities"]["bounding"])

    assert bounding(cap_drop=["ALL"]) == set()
    assert bounding(cap_drop=["all"], cap_add=["chown"]) == {"CAP_CHOWN"}
    assert "CAP_NET_ADMIN" in bounding(cap_add=["CAP_NET_ADMIN"])
    assert bounding(privileged=True) == set(ALL_CAPABILITIES)
    with pytest.raises(InvalidArgument, match='"FLY"'):
        bounding(cap_add=["FLY"])


def test_privileged_has_no_masks() -> None:
    linux = _build(privileged=True)["linux"]
    assert "seccomp" not in linux
    assert "maskedPaths" not in linux
    assert any(device["path"] == "/dev/null" for device in linux["devices"])


def test_environment_of_the_process() -> None:
    env = _build(
        env={"PATH": "/x", "A": "1"}, user=User(1, 1, (), "/home/a"), terminal=True, hostname="h"
    )["process"]["env"]
    assert set(env) == {"PATH=/x", "A=1", "HOME=/home/a", "TERM=xterm", "HOSTNAME=h"}


def test_binds_and_limits() -> None:
    spec = _build(binds=[Bind("/a", "/b", read_only=True)], memory=1024, cpus=1.5, pids=9)
    bind = spec["mounts"][-1]
    assert (bind["destination"], bind["source"]) == ("/b", "/a")
    assert "ro" in bind["options"]
    resources = spec["linux"]["resources"]
    assert resources["memory"] == {"limit": 1024}
    assert resources["cpu"] == {"period": 100_000, "quota": 150_000}
    assert resources["pids"] == {"limit": 9}


def test_bad_commands() -> None:
    with pytest.raises(InvalidArgument, match="no command"):
        build(ContainerSpec(args=[]))
    with pytest.raises(InvalidArgument, match='"relative"'):
        _build(cwd="relative")


def _rules(capabilities: tuple[str, ...], call: str) -> list[dict[str, Any]]:
    profile = default_profile(capabilities, machine="x86_64")
    return [rule for rule in profile["syscalls"] if call in rule["names"]]


def test_seccomp_follows_capabilities() -> None:
    assert not _rules((), "mount")
    assert _rules(("CAP_SYS_ADMIN",), "mount")
    assert not _rules((), "init_module")
    assert _rules((), "clone")[0]["args"][0]["op"] == "SCMP_CMP_MASKED_EQ"
    assert _rules((), "clone3")[0]["errnoRet"] == 38
    assert _rules(("CAP_SYS_ADMIN",), "clone3")[0]["action"] == "SCMP_ACT_ALLOW"
    assert not _rules((), "keyctl")


def test_seccomp_names_no_call_twice() -> None:
    names = default_profile((), machine="x86_64")["syscalls"][0]["names"]
    assert len(names) == len(set(names))


def test_device_nodes_that_come_and_go(tmp_path: Path) -> None:
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            (tmp_path / "by-id").mkdir()
            (tmp_path / "loop0").touch()
            (tmp_path / "by-id").rmdir()
            (tmp_path / "loop0").unlink()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(3000):
            assert not list(host_devices(tmp_path))
    finally:
        stop.set()
        changing.join()
