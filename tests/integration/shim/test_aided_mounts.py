"""Root filesystems that the shim cannot make by mount(2) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orlop import errors
from orlop.fork.client import ForkServer
from orlop.wire.types_pb2 import Mount
from tests import aided_fixture
from tests.integration.shim.harness import Shim

pytestmark = pytest.mark.root

_FUSE = "fuse3.ship-overlayfs"


@pytest.fixture
def aided(folder: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shim]:
    """A shim with a program for FUSE in its PATH."""
    aided_fixture.install(folder, monkeypatch)
    server = ForkServer(["orlop.shim.main"])
    server.start()
    made = Shim(server, folder, rootfs)
    try:
        yield made
        made.shutdown()
    finally:
        made.close()
        server.stop()


def _run(shim: Shim, mounts: Sequence[Mount]) -> None:
    """A container that writes a file."""
    bundle = shim.bundle("one", ["sh", "-c", "echo x > /made"])
    config = bundle / "config.json"
    config.write_text(config.read_text().replace('"readonly": true', '"readonly": false'))
    shim.client.create(id="one", bundle=str(bundle), rootfs=mounts)
    waiting = shim.client.begin("wait", id="one")
    shim.client.start(id="one")
    waiting.result(30)
    shim.client.delete(id="one")
    assert str(shim.folder) not in Path("/proc/self/mountinfo").read_text()


def test_a_disk_in_a_file(shim: Shim) -> None:
    image = shim.folder / "disk"
    source = aided_fixture.disk(image, shim.rootfs)
    _run(shim, [Mount(type="ext4", source=source, options=["loop", "rw"])])
    assert aided_fixture.of_disk(image, "made") == "x\n"


def test_a_program_for_fuse(aided: Shim) -> None:
    options = aided_fixture.overlay(aided.folder, aided.rootfs)
    _run(aided, [Mount(type=_FUSE, source="overlay", options=options)])
    assert (aided.folder / "upper/made").read_text() == "x\n"


def test_a_program_for_fuse_that_fails(aided: Shim) -> None:
    mounts = [Mount(type="fuse3.other", source="overlay", options=["a", "b", "c"])]
    said = r'rootfs.*"mount.fuse3" has not mounted "fuse3.other": told -t other.*one/rootfs'
    with pytest.raises(errors.Unknown, match=said):
        _run(aided, mounts)


def test_no_program_for_fuse(shim: Shim) -> None:
    mounts = [Mount(type="fuse.none", source="overlay")]
    said = r'"fuse.none" is mounted by "mount.fuse", which is not in PATH: install fuse.*one/rootfs'
    with pytest.raises(errors.Unknown, match=said):
        _run(shim, mounts)
