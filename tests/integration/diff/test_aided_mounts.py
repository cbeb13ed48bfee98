"""Layers on mounts that mount(2) alone cannot make."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import OrlopError
from orlop.wire.services import diff_pb2
from orlop.wire.types_pb2 import Descriptor, Mount
from tests import aided_fixture
from tests.daemon_fixture import Orlopd, serving
from tests.layer_fixture import layer, member

pytestmark = pytest.mark.root


@pytest.fixture
def orlopd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orlopd]:
    """With a program for FUSE in its PATH."""
    aided_fixture.install(tmp_path, monkeypatch)
    yield from serving()


def _apply(orlopd: Orlopd, mount: Mount) -> None:
    """A layer of one file."""
    data = gzip.compress(layer(member("made", b"x\n")), mtime=0)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    ingest = orlopd.ctr_command("content", "ingest", "ref")
    subprocess.run(ingest, input=data, check=True, capture_output=True)
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    diff = Descriptor(media_type=kind, digest=digest, size=len(data))
    with orlopd.connect() as connection:
        connection.diff.apply(diff_pb2.ApplyRequest(diff=diff, mounts=[mount]))


def test_a_disk_in_a_file(orlopd: Orlopd, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    image = tmp_path / "disk"
    source = aided_fixture.disk(image, tmp_path / "empty")
    _apply(orlopd, Mount(type="ext4", source=source, options=["loop", "rw"]))
    assert aided_fixture.of_disk(image, "made") == "x\n"


def test_a_program_for_fuse(orlopd: Orlopd, tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    options = aided_fixture.overlay(tmp_path, tmp_path / "lower")
    _apply(orlopd, Mount(type="fuse3.ship-overlayfs", source="overlay", options=options))
    assert (tmp_path / "upper/made").read_text() == "x\n"


def test_no_program_for_fuse(orlopd: Orlopd) -> None:
    with pytest.raises(OrlopError, match=r'"mount\.fuse", which is not in PATH'):
        _apply(orlopd, Mount(type="fuse.none", source="overlay"))
