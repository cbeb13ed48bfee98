"""Devices by CDI, an init, privileges and the rest of what `orlop run` can be told, from inside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def _in(orlopd: Orlopd, busybox: str, script: str, *flags: str) -> list[str]:
    return orlopd.orlop("run", "--rm", *flags, busybox, "sh", "-c", script).stdout.split()


def test_a_device_by_cdi(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat > {tmp_path}/state\n")
    hook.chmod(0o755)
    (tmp_path / "note").write_text("ahoy")
    (tmp_path / "wheel.yaml").write_text(f"""
cdiVersion: "0.7.0"
kind: orlop.example/wheel
containerEdits:
  additionalGids: [77]
devices:
  - name: left
    containerEdits:
      env: [SIDE=left]
      deviceNodes: [{{path: /dev/wheel, hostPath: /dev/fuse, permissions: rw}}]
      mounts: [{{hostPath: {tmp_path}/note, containerPath: /note, options: [ro, bind]}}]
      hooks: [{{hookName: createRuntime, path: {hook}}}]
""")
    flags = ("--cdi-spec-dirs", str(tmp_path))
    script = "echo $SIDE; cat /note; echo; id -G; (: < /dev/wheel) && echo opened"
    for asked in ("--device", "orlop.example/wheel=left"), (
        "--annotation", "cdi.k8s.io/plugin_dev=orlop.example/wheel=left",
    ):  # fmt: skip
        assert _in(orlopd, busybox, script, *flags, *asked) == ["left", "ahoy", "0", "77", "opened"]
        assert json.loads((tmp_path / "state").read_text())["status"] == "creating"
        (tmp_path / "state").unlink()
    refused = orlopd.orlop("run", "--rm", *flags, "--device", "orlop.example/wheel=right", busybox,
                           check=False)  # fmt: skip
    assert refused.returncode == 125
    assert f'device "orlop.example/wheel=right" in the files of {tmp_path}' in refused.stderr
    assert orlopd.ctr("containers", "ls", "-q").stdout == ""


def test_an_init(orlopd: Orlopd, busybox: str) -> None:
    look = "i=0; while ps -o stat | grep -q Z && [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done"
    script = f"(sleep 0.1 &) ; sleep 1; {look}; ps -o pid,stat,comm"
    shown = orlopd.orlop("run", "--rm", "--init", busybox, "sh", "-c", script).stdout
    first = shown.splitlines()[1].split()
    assert (first[0], first[2]) == ("1", "docker-init")
    assert " Z" not in shown  # an orphan has been reaped


def test_all_that_can_be_granted(orlopd: Orlopd, busybox: str) -> None:
    bound = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines()
                 if line.startswith("CapBnd"))  # fmt: skip
    script = "grep CapEff /proc/self/status | cut -f2; ls -d /dev/fuse"
    assert _in(orlopd, busybox, script, "--privileged") == [bound, "/dev/fuse"]
    assert _in(orlopd, busybox, "grep CapEff /proc/self/status | cut -f2", "--cap-add", "ALL",
               ) == [bound]  # fmt: skip
    orlopd.orlop("run", "-d", "--name", "plain", busybox, "sleep", "1000")
    inside = orlopd.orlop("exec", "--privileged", "plain", "grep", "CapEff", "/proc/self/status")
    assert inside.stdout.split()[1] == bound
    orlopd.orlop("rm", "-f", "plain")


def test_names_groups_and_cgroups(orlopd: Orlopd, busybox: str) -> None:
    script = "hostname; cat /proc/sys/kernel/domainname; id -G; grep pids /proc/self/cgroup"
    parent = f"/{orlopd.namespace}/fleet"
    host, domain, *groups, where = _in(
        orlopd, busybox, script, "-h", "box", "--domainname", "deck", "--group-add", "deck",
        "--group-add", "9", "--cgroup-parent", parent, "--name", "ship",
    )  # fmt: skip
    assert (host, domain, set(groups)) == ("box", "deck", {"0", "50", "9"})
    assert where.endswith(f"{parent}/ship")
    for folder in Path("/sys/fs/cgroup").glob(f"*/{orlopd.namespace}/fleet"):
        folder.rmdir()


def test_a_seccomp_profile_of_ones_own(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}],
    }))  # fmt: skip
    script = "mkdir /x 2>&1; mkdir -p /y 2>&1; true"
    found = " ".join(_in(orlopd, busybox, script, "--security-opt", f"seccomp={profile}"))
    assert "Disk quota exceeded" in found


def test_create_and_start(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("# none\ndeck=orlop\n")
    made = orlopd.orlop("create", "--cidfile", str(tmp_path / "id"), "--label-file",
                        str(tmp_path / "labels"), "-v", f"{tmp_path}:/in:ro", "--restart", "always",
                        busybox, "ls", "/in").stdout.strip()  # fmt: skip
    assert (tmp_path / "id").read_text() == made
    assert orlopd.orlop("ps", "-a", "--format", "{{.State}} {{.Labels.deck}}").stdout == (
        "created orlop\n"
    )
    shown = orlopd.orlop("run", "--rm", "--volumes-from", f"{made}:ro", busybox, "ls", "/in")
    assert shown.stdout.split() == ["id", "labels"]
    again = orlopd.orlop("create", "--cidfile", str(tmp_path / "id"), busybox, check=False)
    assert "already exists" in again.stderr
    orlopd.orlop("start", made)
    orlopd.wait_for(lambda: "labels" in orlopd.orlop("logs", made).stdout)
    orlopd.orlop("rm", "-f", made)


def test_errors_of_usage_are_a_line(orlopd: Orlopd, busybox: str) -> None:
    for command, status in (("run", 125), ("exec", 125), ("ps", 2)):
        refused = orlopd.orlop(command, "--no-such-flag", check=False)
        assert refused.returncode == status
        assert refused.stderr.count("\n") == 1
        assert f"see orlop {command} --help" in refused.stderr
    beyond = orlopd.orlop("run", "--cap-add", "NO_SUCH", busybox, check=False)
    assert (beyond.returncode, "is not one that Linux has" in beyond.stderr) == (125, True)
    assert os.linesep.join(orlopd.orlop("run", "--help").stdout.splitlines()[:1]).startswith(
        "usage: orlop run [OPTION …] IMAGE [COMMAND …]"
    )
