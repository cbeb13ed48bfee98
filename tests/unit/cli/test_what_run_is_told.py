"""Options of `orlop run`, without a daemon."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from orlop.cli import run_options, run_resources, run_security
from orlop.cli.run_network import Choice, published_by
from orlop.errors import FailedPrecondition, InvalidArgument, OrlopError
from orlop.oci.spec import ContainerSpec


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(conflict_handler="resolve")
    run_options.configure(parser)
    parser.set_defaults(tty=False)
    return parser.parse_args(flags)


def spec(*flags: str) -> ContainerSpec:
    args = parse(*flags)
    return run_options.spec(args, "box", Choice(args.net[0] if args.net else "none"))


def test_security() -> None:
    found = run_security.parse(
        ["no-new-privileges", "seccomp:unconfined", "apparmor=deck", "systempaths=unconfined",
         "label=type:x_t", "label:level:s0:c1,c2"]
    )  # fmt: skip
    assert found.no_new_privileges
    assert found.seccomp is False
    assert found.apparmor == "deck"
    assert not found.masked
    assert found.selinux == {"type": "x_t", "level": "s0:c1,c2"}
    assert run_security.parse(["seccomp=/a=b:c.json"]).seccomp == "/a=b:c.json"
    assert run_security.parse(["no-new-privileges=false"]).no_new_privileges is False


@pytest.mark.parametrize("text", ["seccomp", "apparmor=", "label=nope", "label=type:", "x=y", ""])
def test_what_is_no_security_option(text: str) -> None:
    with pytest.raises(InvalidArgument, match="security option"):
        run_security.parse([text])


def test_resources() -> None:
    found = spec(
        "--memory-reservation", "1m", "--memory-swappiness", "0", "--oom-kill-disable",
        "--cpu-period", "1000", "--cpu-quota", "-1", "--cpuset-mems", "0", "--blkio-weight", "10",
        "--device-cgroup-rule", "c 1:* rw", "--pids-limit", "-1",
    )  # fmt: skip
    assert found.resources == {
        "memory": {"reservation": 1 << 20, "swappiness": 0, "disableOOMKiller": True},
        "cpu": {"period": 1000, "quota": -1, "mems": "0"},
        "blockIO": {"weight": 10},
        "devices": [{"allow": True, "type": "c", "access": "rw", "major": 1}],
    }
    assert found.pids == -1
    assert spec().resources == {}


@pytest.mark.parametrize(
    "flags",
    [
        ("--device-read-bps", "/dev/null:1m"),
        ("--device-write-iops", "/no/such:5"),
        ("--device-cgroup-rule", "c 1:x rwm"),
        ("--cpus", "1", "--cpu-quota", "1000"),
        ("--mount", "type=bind,src=/,dst=/x,bind-propagation=odd"),
        ("--init-path", "/no/such"),
    ],
)
def test_what_makes_no_sense(flags: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument):
        spec(*flags)


def test_mounts() -> None:
    found = spec(
        "-v", "/etc:/a:ro,rslave", "--mount", "type=bind,src=/etc,dst=/b,bind-recursive=disabled",
        "--mount", "type=bind,src=/etc,dst=/c,bind-propagation=shared,readonly=true",
    )  # fmt: skip
    shown: list[tuple[Any, ...]] = [
        (each.target, each.read_only, each.propagation, each.recursive) for each in found.binds
    ]
    assert shown == [
        ("/a", True, "rslave", True),
        ("/b", False, "rprivate", False),
        ("/c", True, "shared", True),
    ]


def test_an_init_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPrecondition, match="--init needs one of docker-init"):
        spec("--init")
    (tmp_path / "tini").touch(0o755)
    assert spec("--init").init == str(tmp_path / "tini")


def test_devices_by_cdi() -> None:
    args = parse(
        "--device", "/dev/null", "--device", "a.b/c=d", "--gpus", "1",
        "--annotation", "cdi.k8s.io/x=a.b/c=e", "--annotation", "other=a.b/c=f",
    )  # fmt: skip
    assert run_options.cdi_devices(args) == ["a.b/c=d", "nvidia.com/gpu=0", "a.b/c=e"]
    with pytest.raises(OrlopError, match="annotation"):
        run_options.cdi_devices(parse("--annotation", "cdi.k8s.io/x=nope"))


def test_limits_beside_others() -> None:
    assert run_resources.extra(parse("--cpu-shares", "5")) == {}


def test_a_range_of_the_host_for_one_port_is_where_a_free_one_is() -> None:
    assert published_by("127.0.0.1:8000-8100:80/udp") == [
        {
            "containerPort": 80,
            "protocol": "udp",
            "hostIP": "127.0.0.1",
            "hostPort": 8000,
            "hostPortEnd": 8100,
        }
    ]
    assert published_by("80-81:90-91") == [
        {"containerPort": 90, "protocol": "tcp", "hostPort": 80, "count": 2}
    ]
    assert published_by("80-80:90") == [{"containerPort": 90, "protocol": "tcp", "hostPort": 80}]
    with pytest.raises(InvalidArgument, match="differ in length"):
        published_by("80-82:90-91")


def test_cgroup_namespaces_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_options, "_UNIFIED", tmp_path / "cgroup.controllers")
    assert not spec().private_cgroup
    assert spec("--cgroupns", "private").private_cgroup
    (tmp_path / "cgroup.controllers").touch()
    assert spec().private_cgroup
    assert not spec("--cgroupns", "host").private_cgroup


def test_shared_memory() -> None:
    assert spec("--shm-size", "8m").shm_size == 8 << 20
    assert spec().shm_size == spec("--shm-size", "0").shm_size == 64 << 20
    assert spec("--ipc", "none").shm_size == 0
