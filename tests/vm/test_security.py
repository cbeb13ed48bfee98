"""What a container may do: AppArmor, seccomp, user namespaces, limits beyond the daemon's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import OrlopError
from tests.daemon_fixture import Orlopd
from tests.vm.boxes import Boxes, options

PROFILE = """
profile orlop-test flags=(attach_disconnected,mediate_deleted) {
  network, capability, file, umount, signal, ptrace,
  deny /etc/forbidden r,
}
"""


@pytest.fixture(scope="module")
def profile() -> Iterator[str]:
    """A profile that the kernel has."""
    _parser("--add", PROFILE)
    yield "orlop-test"
    _parser("--remove", PROFILE)


def _parser(option: str, text: str) -> None:
    subprocess.run(["apparmor_parser", option], input=text, text=True, check=True)


@pytest.mark.short
def test_apparmor_profile(boxes: Boxes, profile: str) -> None:
    (boxes.rootfs / "etc/forbidden").write_text("secret")

    def confine(spec: dict[str, Any]) -> None:
        spec["process"]["apparmorProfile"] = profile

    with boxes.box(edit=confine) as box:
        assert _label(box.pid) == "orlop-test (enforce)"
    with boxes.box("cat", "/etc/forbidden", edit=confine) as box:
        assert box.wait() == 1
        assert "Permission denied" in box.output()
    with boxes.box("cat", "/etc/forbidden") as box:
        assert box.output() == "secret"


def test_apparmor_profile_that_is_not_loaded(boxes: Boxes) -> None:
    def confine(spec: dict[str, Any]) -> None:
        spec["process"]["apparmorProfile"] = "no-such-profile"

    with (
        pytest.raises(OrlopError, match="apply apparmor profile"),
        boxes.box(edit=confine),
    ):
        pass


def _label(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip()


def test_apparmor_by_ctr_and_by_orlop(orlopd: Orlopd, busybox: str, profile: str) -> None:
    read = ("cat", "/proc/self/attr/apparmor/current")
    default = ("--apparmor-default-profile", "orlop-test-default")
    shown = orlopd.ctr("run", "--rm", *default, busybox, "job", *read)
    assert shown.stdout == "orlop-test-default (enforce)\n"
    shown = orlopd.ctr("run", "--rm", "--apparmor-profile", profile, busybox, "job", *read)
    assert shown.stdout == "orlop-test (enforce)\n"
    shown = orlopd.orlop("run", "--rm", "--security-opt", f"apparmor={profile}", busybox, *read)
    assert shown.stdout == "orlop-test (enforce)\n"
    shown = orlopd.ctr(
        "run", "--rm", "--seccomp", busybox, "job", "grep", "Seccomp:", "/proc/1/status"
    )
    assert shown.stdout.split() == ["Seccomp:", "2"]


@pytest.mark.short
def test_limits_beyond_those_of_the_daemon(boxes: Boxes) -> None:
    def privilege(spec: dict[str, Any]) -> None:
        limit = {"type": "RLIMIT_NOFILE", "hard": 1_048_577, "soft": 1_048_577}
        spec["process"] |= {"oomScoreAdj": -500, "rlimits": [limit]}

    Path("/proc/sys/fs/nr_open").write_text("2097152")
    with boxes.box(edit=privilege) as box:
        assert Path(f"/proc/{box.pid}/oom_score_adj").read_text().strip() == "-500"
        assert "1048577" in Path(f"/proc/{box.pid}/limits").read_text()


MAPPING = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]


@pytest.mark.short
@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_user_namespace(boxes: Boxes, runtime: str) -> None:
    with boxes.box(
        options=options(binary_name=runtime),
        namespaces=("pid", "ipc", "uts", "mount", "network", "user"),
        uidMappings=MAPPING,
        gidMappings=MAPPING,
    ) as box:
        assert Path(f"/proc/{box.pid}").stat().st_uid == 100_000
        assert Path(f"/proc/{box.pid}/uid_map").read_text().split() == ["0", "100000", "65536"]


def test_mount_with_mapped_ids(boxes: Boxes, tmp_path: Path) -> None:
    """By crun; runC maps the ids of mounts from 1.2 on."""
    (tmp_path / "note").write_text("")

    def bind(spec: dict[str, Any]) -> None:
        mount = {"destination": "/tmp", "type": "bind", "source": str(tmp_path)}
        spec["mounts"].append({**mount, "options": ["bind", "idmap"]})

    tmp_path.chmod(0o755)
    with boxes.box(
        *("sh", "-c", "busybox stat -c %u /tmp/note"),
        options=options(binary_name="crun"),
        namespaces=("pid", "ipc", "uts", "mount", "network", "user"),
        uidMappings=MAPPING,
        gidMappings=MAPPING,
        edit=bind,
    ) as box:
        assert box.output() == "0\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": {"selinuxLabel": "system_u:system_r:container_t:s0"}}, "selinux"),
        ({"linux": {"mountLabel": "system_u:object_r:container_file_t:s0"}}, "container_file_t"),
        ({"linux": {"intelRdt": {"l3CacheSchema": "L3:0=f"}}}, "Intel RDT/CAT is not enabled"),
        ({"linux": {"resources": {"rdma": {"mlx0": {"hcaHandles": 3}}}}}, "rdma.max"),
    ],
)
def test_what_the_machine_lacks_reaches_the_runtime(
    boxes: Boxes, change: dict[str, dict[str, object]], words: str
) -> None:
    """The runtime itself refuses: the spec got there as it was."""

    def edit(spec: dict[str, Any]) -> None:
        for part, fields in change.items():
            spec[part] |= fields

    with pytest.raises(OrlopError) as refused, boxes.box(edit=edit):
        pass
    assert words in refused.value.message


@pytest.mark.parametrize("shared", [False, True])
def test_session_keyring(boxes: Boxes, shared: bool) -> None:
    with boxes.box("cat", "/proc/keys", options=options(no_new_keyring=shared)) as box:
        assert (f"_ses.{box.id}" in box.output()) is not shared


def test_the_bundle_keeps_what_nobody_knows(boxes: Boxes) -> None:
    rare = {"deep": [1, 2.5, None]}

    def edit(spec: dict[str, Any]) -> None:
        spec["linux"]["unheardOf"] = rare

    with boxes.box(edit=edit) as box:
        bundles = boxes.daemon.state / "io.containerd.runtime.v2.task" / boxes.daemon.namespace
        written = json.loads((bundles / box.id / "config.json").read_text())
        assert written["linux"]["unheardOf"] == rare
