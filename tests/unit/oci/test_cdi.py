"""CDI devices: names, files, and what becomes of a runtime spec."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import FailedPrecondition, InvalidArgument, NotFound
from orlop.oci import cdi
from orlop.oci.cdi import files, names

WHEEL = {
    "cdiVersion": "0.6.0",
    "kind": "orlop.example/wheel",
    "containerEdits": {"env": ["WHEELS=1"], "additionalGids": [7, 0, 7]},
    "devices": [
        {
            "name": "left",
            "containerEdits": {
                "env": ["SIDE=left"],
                "deviceNodes": [{"path": "/dev/wheel", "hostPath": "/dev/null"}],
                "mounts": [{"hostPath": "/etc", "containerPath": "/opt/etc", "options": ["rbind"]}],
                "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"]}],
                "intelRdt": {"closID": "fast", "enableCMT": True},
            },
        },
        {"name": "right", "containerEdits": {"env": ["SIDE=right"]}},
    ],
}
YAML = """
cdiVersion: "0.5.0"
kind: orlop.example/rope
devices:
  - name: "0"
    containerEdits:
      deviceNodes:
        - {path: /dev/rope, type: c, major: 1, minor: 5, permissions: r, fileMode: 0o660, uid: 3}
""".replace("0o660", "432")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wheel.json").write_text(json.dumps(WHEEL))
    (tmp_path / "rope.yaml").write_text(YAML)
    (tmp_path / "README").write_text("not for you")
    return tmp_path


def injected(*wanted: str, folders: list[Path], uid: int = 0) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "process": {"env": ["SIDE=none", "A=b"], "user": {"uid": uid, "gid": 0}},
        "mounts": [{"destination": "/opt/etc/deep"}, {"destination": "/proc"}],
        "linux": {},
    }
    cdi.inject(spec, wanted, [str(each) for each in folders])
    return spec


def test_all_edits(folder: Path) -> None:
    spec = injected("orlop.example/wheel=left", folders=[folder])
    assert spec["process"]["env"] == ["A=b", "WHEELS=1", "SIDE=left"]
    assert spec["process"]["user"]["additionalGids"] == [7]
    info = Path("/dev/null").stat()
    number = {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}
    assert spec["linux"]["devices"] == [
        {"path": "/dev/wheel", "type": "c", **number, "fileMode": 0o666}
    ]
    assert spec["linux"]["resources"]["devices"] == [
        {"allow": True, "type": "c", **number, "access": "rwm"}
    ]
    assert [each["destination"] for each in spec["mounts"]] == [
        "/proc", "/opt/etc", "/opt/etc/deep",
    ]  # fmt: skip
    assert spec["hooks"] == {"createContainer": [{"path": "/bin/true", "args": ["true"]}]}
    assert spec["linux"]["intelRdt"] == {"closID": "fast", "enableCMT": True}


def test_what_is_for_all_devices_is_done_once(folder: Path) -> None:
    both = ("orlop.example/wheel=left", "orlop.example/wheel=right", "orlop.example/wheel=left")
    spec = injected(*both, "orlop.example/rope=0", folders=[folder], uid=1000)
    assert spec["process"]["env"] == ["A=b", "WHEELS=1", "SIDE=right"]
    wheel, rope = spec["linux"]["devices"]
    assert wheel["uid"] == 1000  # the user of the process may use it
    assert rope == {
        "path": "/dev/rope", "type": "c", "major": 1, "minor": 5, "fileMode": 0o660, "uid": 3,
    }  # fmt: skip
    assert spec["linux"]["resources"]["devices"][1]["access"] == "r"


def test_a_later_folder_counts(folder: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    later.mkdir()
    changed = json.loads(json.dumps(WHEEL))
    changed["devices"][0]["containerEdits"] = {"env": ["SIDE=middle"]}
    (later / "wheel.json").write_text(json.dumps(changed))
    spec = injected("orlop.example/wheel=left", folders=[folder, later])
    assert "SIDE=middle" in spec["process"]["env"]


def test_two_files_that_quarrel(folder: Path) -> None:
    (folder / "wheel2.json").write_text(json.dumps(WHEEL))
    with pytest.raises(FailedPrecondition, match=r"wheel=left.*wheel\.json.*wheel2\.json"):
        injected("orlop.example/wheel=left", folders=[folder])
    injected("orlop.example/rope=0", folders=[folder])  # whom it does not concern


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cdiVersion": "2.0.0"}, 'version "2.0.0" is not known'),
        ({"kind": "wheel"}, 'kind "wheel" is not VENDOR/CLASS'),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"devices": "x"}, "Expected `array`"),
        ({"devices": [{"name": "x"}, {"name": "x"}]}, 'device "x" is there twice'),
        ({"devices": [{"name": "-x"}]}, 'device "-x" cannot be called so'),
        ({"containerEdits": {"env": ["X"]}}, 'variable "X" is not NAME=VALUE'),
        ({"containerEdits": {"hooks": [{"hookName": "x", "path": "/x"}]}}, 'hook "x" is none of'),
        ({"containerEdits": {"mounts": [{"hostPath": "/", "containerPath": "x"}]}}, "no absolute"),
        ({"containerEdits": {"deviceNodes": [{"path": "dev"}]}}, "no absolute path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/d", "type": "x"}]}}, 'type "x"'),
        ({"containerEdits": {"deviceNodes": [{"path": "/d", "permissions": "x"}]}}, "of r, w, m"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**WHEEL, **change}))
    with pytest.raises(InvalidArgument, match=r"bad\.json") as caught:
        files.read(path)
    assert words in str(caught.value)
    with pytest.raises(NotFound, match=r'device "orlop.example/wheel=left".*bad\.json'):
        injected("orlop.example/wheel=left", folders=[tmp_path])


@pytest.mark.parametrize("text", ["{", "a: [", "\tx: 1", "[1, 2]", "null", "&a [*a]"])
def test_files_that_are_no_descriptions(tmp_path: Path, text: str) -> None:
    for suffix in ("json", "yaml"):
        path = tmp_path / f"bad.{suffix}"
        path.write_text(text)
        with pytest.raises(InvalidArgument, match=rf"bad\.{suffix}"):
            files.read(path)


def test_a_node_that_the_host_lacks(folder: Path) -> None:
    lacking = json.loads(json.dumps(WHEEL))
    lacking["devices"][0]["containerEdits"]["deviceNodes"][0]["hostPath"] = "/dev/no-such"
    (folder / "wheel.json").write_text(json.dumps(lacking))
    with pytest.raises(FailedPrecondition, match=r'wheel=left" of ".*wheel.json": "/dev/no-such"'):
        injected("orlop.example/wheel=left", folders=[folder])


@pytest.mark.parametrize("name", ["x=y", "a/b=", "a/b", "/a/b=c", "a/b=-", "a/b=c/d", "1a/b=c"])
def test_what_is_no_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is not VENDOR"):
        injected(name, folders=[tmp_path])


def test_annotations() -> None:
    found = cdi.of_annotations({"cdi.k8s.io/x": "a.b/c=d,a.b/c=e", "other": "a.b/c=f"})
    assert found == ["a.b/c=d", "a.b/c=e"]
    with pytest.raises(InvalidArgument, match=r'annotation "cdi\.k8s\.io/x": device "nope"'):
        cdi.of_annotations({"cdi.k8s.io/x": "a.b/c=d,nope"})


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("all", ["all"]),
        ("2", ["0", "1"]),
        ("device=0,3", ["0", "3"]),
        ('"device=0,3"', ["0", "3"]),
        ("device=GPU-1a", ["GPU-1a"]),
        ("count=1", ["0"]),
        ("count=all", ["all"]),
        ('driver=nvidia,"device=1,2",capabilities=utility', ["1", "2"]),
        ('all,"capabilities=compute,utility"', ["all"]),
    ],
)
def test_gpus(text: str, ids: list[str]) -> None:
    assert cdi.gpus(text) == [f"{names.GPU}={each}" for each in ids]


@pytest.mark.parametrize("text", ["some", "driver=amd", "device=/x", "count=x"])
def test_what_are_no_gpus(text: str) -> None:
    with pytest.raises(InvalidArgument):
        cdi.gpus(text)
