"""Layers that a program of the operator's turns into known ones: encrypted, with openssl."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Payload

from orlop.diff.processors import Processor, Processors
from orlop.errors import FailedPrecondition, InvalidArgument, OrlopError
from orlop.oci import mediatypes
from orlop.sys.process import mark
from orlop.wire.services import diff_pb2
from orlop.wire.types_pb2 import Descriptor, Mount
from tests.daemon_fixture import Orlopd, serving
from tests.layer_fixture import layer, member
from tests.patience import wait_for

pytestmark = pytest.mark.root

GZIP = mediatypes.OCI_LAYER + "+gzip"
ENCRYPTED = GZIP + "+encrypted"
KEY, IV = "00" * 31 + "07", "11" * 16
CIPHER = ("enc", "-aes-256-ctr", "-K", KEY, "-iv", IV)
CONFIG = f"""
[stream_processors.locksmith]
accepts = ["{ENCRYPTED}"]
returns = "{GZIP}"
path = "/usr/bin/openssl"
args = ["enc", "-d", "-aes-256-ctr", "-K", "{KEY}", "-iv", "{IV}"]

[stream_processors.told]
accepts = ["application/vnd.example.told"]
returns = "{ENCRYPTED}"
path = "/bin/sh"
args = ["-c", '''
  test "$STREAM_PROCESSOR_MEDIATYPE" = "application/vnd.example.told" || exit 5
  test "$WORD" = yes && grep -aq secret <&3 && cat''']
env = ["WORD=yes"]

[stream_processors.sulks]
accepts = ["application/vnd.example.sulks"]
returns = "{GZIP}"
path = "/bin/sh"
args = ["-c", "head -c 10; echo will not >&2; exit 3"]
"""


def encrypted(data: bytes) -> bytes:
    done = subprocess.run(["openssl", *CIPHER], input=data, capture_output=True, check=True)
    return done.stdout


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Orlopd]:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    yield from serving(["--config", str(config)])


def archive(path: Path, name: str) -> None:
    """An image of two layers, in an OCI layout: busybox encrypted, and a file on it as it is."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    box = Path("/bin/busybox").read_bytes()
    plain = [layer(member("bin/busybox", box, mode=0o755)), layer(member("note", b"on it\n"))]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in plain],
        },
        "config": {"Env": ["PATH=/bin"]},
    }
    packed = [gzip.compress(each) for each in plain]
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": put(json.dumps(config).encode(), mediatypes.OCI_CONFIG),
        "layers": [put(encrypted(packed[0]), ENCRYPTED), put(packed[1], GZIP)],
    }
    entry = put(json.dumps(manifest).encode(), mediatypes.OCI_MANIFEST)
    entry["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [entry]}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }
    with tarfile.open(path, "w") as tar:
        for key, data in files.items():
            info = tarfile.TarInfo(key)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))


@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs"])
def test_an_encrypted_image_is_loaded_pushed_pulled_and_run(
    daemon: Orlopd, registry: str, tmp_path: Path, snapshotter: str
) -> None:
    name = f"{registry}/test/sealed-{os.getpid()}-{snapshotter}:1"
    archive(tmp_path / "sealed.tar", name)
    where = ("--snapshotter", snapshotter)

    def runs() -> None:
        shown = daemon.orlop("run", "--rm", *where, name, "busybox", "cat", "/note")
        assert shown.stdout == "on it\n"

    daemon.orlop("load", *where, "-i", str(tmp_path / "sealed.tar"))
    runs()
    daemon.orlop("push", name)
    daemon.orlop("rmi", name)
    daemon.wait_for(lambda: not daemon.ctr("content", "ls", "-q").stdout)
    daemon.orlop("pull", *where, name)
    runs()
    daemon.orlop("rmi", name)


def applied(daemon: Orlopd, data: bytes, kind: str, **payloads: Payload) -> Path:
    """Where a layer was applied by the API; or what it raises."""
    target = daemon.folder / "target"
    target.mkdir(exist_ok=True)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    subprocess.run(
        daemon.ctr_command("content", "ingest", f"ref-{time.monotonic_ns()}"),
        input=data, check=True, capture_output=True,
    )  # fmt: skip
    request = diff_pb2.ApplyRequest(
        diff=Descriptor(media_type=kind, digest=digest, size=len(data)),
        mounts=[Mount(type="bind", source=str(target), options=["rbind", "rw"])],
        payloads=payloads,
    )
    with daemon.connect() as connection:
        connection.diff.apply(request)
    return target


def test_by_two_programs_with_a_payload(daemon: Orlopd) -> None:
    """The first gets its payload, its media type and its environment, the second its output."""
    data = encrypted(gzip.compress(layer(member("told", b"yes"))))
    payload = Payload(type_url="example.key", value=b"the secret")
    kind = "application/vnd.example.told"
    assert (applied(daemon, data, kind, told=payload) / "told").read_bytes() == b"yes"
    with pytest.raises(FailedPrecondition, match='"told" failed with status'):
        applied(daemon, data, kind, told=Payload(type_url="example.key", value=b"nothing"))
    with pytest.raises(FailedPrecondition, match='"told" failed with status'):
        applied(daemon, data, kind)


def test_what_a_program_says_is_told(daemon: Orlopd) -> None:
    data = gzip.compress(layer(member("file", b"x")))
    with pytest.raises(FailedPrecondition, match='"sulks" failed with status 3: will not'):
        applied(daemon, data, "application/vnd.example.sulks")
    with pytest.raises(InvalidArgument, match="no processor for media-type"):
        applied(daemon, data, "application/vnd.example.unheard-of")
    # What comes out is no tar, and that is not the fault of the program.
    wrong = encrypted(b"no tar at all" * 1000)
    with pytest.raises(InvalidArgument):
        applied(daemon, wrong, ENCRYPTED)


def processors(**known: Mapping[str, Any]) -> Processors:
    made = {
        name: Processor(name, each["accepts"], each["returns"], "/bin/sh", ("-c", each["script"]))
        for name, each in known.items()
    }
    return Processors(made)


def read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "source"
    path.write_bytes(b"content of a layer")
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_an_endless_circle_of_types() -> None:
    found = processors(
        a={"accepts": ["x"], "returns": "y", "script": "cat"},
        b={"accepts": ["y"], "returns": "x", "script": "cat"},
    )
    assert not found.takes("x")
    assert found.takes(GZIP)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("cat; exit 4", "status 4"),
        ("cat; kill -9 $$", "status -9"),
        ("cat; exec >&-; echo slow >&2; sleep 100", "does not end"),
    ],
)
def test_an_end_that_is_none(
    source: int, script: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the layer has come, and yet something went wrong."""
    if "sleep" in script:
        monkeypatch.setattr("orlop.diff.processors._PATIENCE", 0.5)
    before = children()
    found = processors(a={"accepts": ["x"], "returns": GZIP, "script": script})
    with pytest.raises(FailedPrecondition, match=complaint), found.plain("x", source) as stream:
        assert read_all(stream) == b"content of a layer"
    assert children() <= before  # one of another test's may go


def test_a_reader_that_gives_up(source: int) -> None:
    """Its error is the one that counts; the program ends, whatever it does."""
    before = children()
    found = processors(a={"accepts": ["x"], "returns": GZIP, "script": "exec yes"})
    with pytest.raises(OrlopError, match="enough"), found.plain("x", source) as stream:
        os.read(stream, 100)
        raise InvalidArgument("enough")
    assert children() <= before  # one of another test's may go


def test_a_program_that_is_not_there(source: int) -> None:
    found = Processors({"a": Processor("a", ["x"], GZIP, "/nowhere/at-all")})
    with (
        pytest.raises(FailedPrecondition, match="/nowhere/at-all: No such file"),
        found.plain("x", source),
    ):
        pass


def test_what_a_program_has_started_goes_with_it(source: int, tmp_path: Path) -> None:
    """And a complaint that does not end holds up nothing."""
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; cat; yes complaint >&2"
    found = processors(a={"accepts": ["x"], "returns": GZIP, "script": script})
    with pytest.raises(OrlopError, match="enough"), found.plain("x", source) as stream:
        os.read(stream, 100)
        raise InvalidArgument("enough")
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: not mark(child))


def test_where_many_files_are_open(source: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = [os.dup(source) for _ in range(1100)]
    try:
        found = processors(a={"accepts": ["x"], "returns": GZIP, "script": "cat"})
        with found.plain("x", source) as stream:
            assert read_all(stream) == b"content of a layer"
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
