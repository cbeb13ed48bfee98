"""Image verifiers: what they are given, what their answers mean, and how long they may take."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from orlop.errors import Cancelled, DeadlineExceeded, FailedPrecondition, PermissionDenied
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.sys.process import mark
from orlop.trust import Verifiers
from orlop.trust.verifiers import OUTPUT_MAX
from tests.patience import patient

NAME = "registry.example/app:1"
TARGET = Descriptor(
    media_type="application/vnd.oci.image.index.v1+json", digest="sha256:" + "ab" * 32, size=7
)


def write(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def check(verifiers: Verifiers, ctx: CallContext | None = None) -> None:
    verifiers.check(NAME, TARGET, ctx or CallContext(namespace="test"))


def test_no_folder_and_an_empty_one_accept(tmp_path: Path) -> None:
    check(Verifiers(tmp_path / "missing"))
    check(Verifiers(tmp_path))


def test_it_is_given_name_digest_and_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "do not tell")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "bin").mkdir()
    write(tmp_path / "bin", "v", f'echo "$@" >{out}/args; cat >{out}/stdin; env >{out}/env')
    check(Verifiers(tmp_path / "bin"))
    assert (out / "args").read_text().split() == [
        *("-name", NAME, "-digest", TARGET.digest),
        *("-stdin-media-type", "application/vnd.oci.descriptor.v1+json"),
    ]
    assert json.loads((out / "stdin").read_text()) == {
        "mediaType": TARGET.media_type,
        "digest": TARGET.digest,
        "size": 7,
    }
    assert "SECRET" not in (out / "env").read_text()


def test_a_descriptor_longer_than_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    write(tmp_path / "bin", "v", f"cat >{tmp_path}/stdin")
    long = replace(TARGET, annotations={"note": "x" * 200_000})
    Verifiers(tmp_path / "bin").check(NAME, long, CallContext(namespace="test"))
    assert json.loads((tmp_path / "stdin").read_text())["annotations"] == long.annotations


def test_one_rejection_is_enough_and_says_who_and_why(tmp_path: Path) -> None:
    write(tmp_path, "a", "echo fine")
    write(tmp_path, "b", "echo not signed; exit 3")
    with pytest.raises(PermissionDenied) as caught:
        check(Verifiers(tmp_path))
    for part in ('"b"', NAME, TARGET.digest, "not signed"):
        assert part in str(caught.value)


def test_only_the_first_by_name_are_asked(tmp_path: Path) -> None:
    write(tmp_path, "a", "exit 0")
    write(tmp_path, "b", "exit 1")
    check(Verifiers(tmp_path, most=1))
    with pytest.raises(PermissionDenied, match="exit status 1"):
        check(Verifiers(tmp_path, most=-1))


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    write(tmp_path, "slow", f"sleep 30 & echo $! >{tmp_path}/../child; wait")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="slow"):
        check(Verifiers(tmp_path, limit=patient(6)))
    assert time.monotonic() - began < patient(15)
    child = int((tmp_path / "../child").read_text())
    assert not runs(child)


def runs(pid: int) -> bool:
    """Whether it still runs, some time after it was killed."""
    end = time.monotonic() + patient(10)
    while time.monotonic() < end:
        if not mark(pid):
            return False
        time.sleep(0.02)
    return True


def test_a_child_that_holds_the_streams_holds_up_nobody(tmp_path: Path) -> None:
    write(tmp_path, "v", f"sleep {patient(30)} & echo done; exit 0")
    began = time.monotonic()
    check(Verifiers(tmp_path))
    assert time.monotonic() - began < patient(5)


def test_a_flood_of_output_is_cut(tmp_path: Path) -> None:
    write(tmp_path, "v", "head -c 1000000 /dev/zero | tr '\\0' x; exit 1")
    with pytest.raises(PermissionDenied) as caught:
        check(Verifiers(tmp_path))
    assert OUTPUT_MAX <= len(str(caught.value)) < OUTPUT_MAX + 1000


def test_what_cannot_be_run_rejects(tmp_path: Path) -> None:
    (tmp_path / "readme").write_text("no program")
    with pytest.raises(FailedPrecondition, match="readme"):
        check(Verifiers(tmp_path))


def test_a_cancelled_pull_ends_it(tmp_path: Path) -> None:
    write(tmp_path, "slow", "exec sleep 30")
    ctx = CallContext(namespace="test")
    ctx.cancel()
    with pytest.raises(Cancelled):
        check(Verifiers(tmp_path), ctx)
