"""Seccomp profiles in files, in both forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import InvalidArgument
from orlop.oci import seccomp_file


def load(tmp_path: Path, profile: object, caps: tuple[str, ...] = ()) -> dict[str, Any]:
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    return seccomp_file.load(str(tmp_path / "profile.json"), caps, "x86_64", "6.1.0-49-amd64")


def test_the_form_of_the_runtime_spec(tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": "/run/x.sock",
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}],
    }
    assert load(tmp_path, profile) == profile


def test_dockers_form(tmp_path: Path) -> None:
    def rule(name: str, **conditions: object) -> dict[str, object]:
        return {
            "names": [name],
            "action": "SCMP_ACT_ALLOW",
            "args": [],
            "comment": "x",
            **conditions,
        }

    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        ],
        "syscalls": [
            rule("always"),
            rule("new", includes={"minKernel": "4.8"}),
            rule("newer", includes={"minKernel": "6.2"}),
            rule("here", includes={"arches": ["amd64", "x32"]}),
            rule("there", includes={"arches": ["arm64"]}),
            rule("mighty", includes={"caps": ["CAP_SYS_ADMIN"]}),
            rule("meek", excludes={"caps": ["CAP_SYS_ADMIN"]}),
            rule("elsewhere", excludes={"arches": ["amd64"]}),
        ],
    }
    found = load(tmp_path, profile)
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [each["names"] for each in found["syscalls"]] == [
        ["always"],
        ["new"],
        ["here"],
        ["meek"],
    ]
    assert found["syscalls"][0] == {"names": ["always"], "action": "SCMP_ACT_ALLOW"}
    mighty = load(tmp_path, profile, ("CAP_SYS_ADMIN",))
    assert [each["names"] for each in mighty["syscalls"]][-1] == ["mighty"]


@pytest.mark.parametrize(
    "profile",
    [[], {}, {"defaultAction": "x", "syscalls": [{}]}, {"defaultAction": "x", "syscalls": 3}],
)
def test_what_is_no_profile(tmp_path: Path, profile: object) -> None:
    with pytest.raises(InvalidArgument, match=r"profile\.json"):
        load(tmp_path, profile)
