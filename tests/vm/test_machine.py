"""The machine is what the tests of this folder count on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.short


def test_cgroup_v2_alone_with_every_controller() -> None:
    controllers = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    assert {"cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"} <= set(controllers)
    assert " cgroup rw" not in Path("/proc/self/mounts").read_text()


def test_apparmor_is_enabled() -> None:
    assert Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"


def test_systemd_is_the_first_process_and_content() -> None:
    assert Path("/proc/1/comm").read_text().strip() == "systemd"
    failed = subprocess.run(
        ["systemctl", "list-units", "--failed", "--plain", "--no-legend"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert failed.stdout == ""


def test_every_capability() -> None:
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert effective == (1 << last + 1) - 1
    assert os.geteuid() == 0


def test_kinds_of_links_that_hosts_may_lack() -> None:
    """For tests of networks."""
    for kind in ("dummy", "vlan id 7 link parent", "ipvlan link parent", "macvlan link parent"):
        words, _, parent = kind.partition(" link ")
        name, *more = words.split()
        link = ["link", parent] if parent else []
        made = "made" if parent else "parent"
        subprocess.run(["ip", "link", "add", *link, "name", made, "type", name, *more], check=True)
        if parent:
            subprocess.run(["ip", "link", "del", made], check=True)
    subprocess.run(["ip", "link", "del", "parent"], check=True)
