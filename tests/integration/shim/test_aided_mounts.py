"""Root filesystems that the shim cannot make by mount(2) alone."""

from __future__ import annotations

import subprocess
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


def _run(shim: Shim, mounts: Sequence[Mount], id: str = "one") -> None:
    """A container that writes a file, with its own name in it."""
    bundle = shim.bundle(id, ["sh", "-c", f"echo {id} > /{id}"])
    config = bundle / "config.json"
    config.write_text(config.read_text().replace('"readonly": true', '"readonly": false'))
    shim.client.create(id=id, bundle=str(bundle), rootfs=mounts)
    waiting = shim.client.begin("wait", id=id)
    shim.client.start(id=id)
    waiting.result(30)
    shim.client.delete(id=id)
    assert str(shim.folder) not in Path("/proc/self/mountinfo").read_text()
    (bundle / "rootfs").rmdir()  # as the daemon does: nobody else's copy of the mount outlives it


def test_a_disk_in_a_file(shim: Shim) -> None:
    image = shim.folder / "disk"
    source = aided_fixture.disk(image, shim.rootfs)
    _run(shim, [Mount(type="ext4", source=source, options=["loop", "rw"])])
    assert aided_fixture.of_disk(image, "one") == "one\n"


def test_a_disk_that_somebody_still_has(shim: Shim) -> None:
    """As long as anybody has a copy of the host's mounts its filesystem lives on, and writes."""
    image = shim.folder / "disk"
    mounts = [Mount(type="ext4", source=aided_fixture.disk(image, shim.rootfs), options=["loop"])]
    point = shim.folder / "point"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        holder = subprocess.Popen(["unshare", "-m", "sh", "-c", "echo; exec sleep 1000"],
                                  stdout=subprocess.PIPE)  # fmt: skip
        with holder:
            try:
                assert holder.stdout is not None
                holder.stdout.readline()
                (point / "first").write_text("first\n")
                subprocess.run(["umount", point], check=True)
                _run(shim, mounts, "second")
                _run(shim, mounts, "third")
            finally:
                holder.kill()
    finally:
        subprocess.run(["umount", "-q", point], check=False)
    for name in ("first", "second", "third"):
        assert aided_fixture.of_disk(image, name) == f"{name}\n"
    subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)


def test_a_program_for_fuse(aided: Shim) -> None:
    options = aided_fixture.overlay(aided.folder, aided.rootfs)
    _run(aided, [Mount(type=_FUSE, source="overlay", options=options)])
    assert (aided.folder / "upper/one").read_text() == "one\n"


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
