"""`orlop store adopt` of the root of a real containerd."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.client import leases
from orlop.wire.services import store_pb2
from tests.containerd_fixture import run_containerd
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.registry_fixture import skopeo_copy

# The first test of each process has a containerd filled.
pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

_DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
_BLOBS = "io.containerd.content.v1.content/blobs/sha256"
_MANY = 300  # more than fit into one page, so that there are branches


@pytest.fixture(scope="session")
def used(tmp_path_factory: pytest.TempPathFactory, layout: Path, busybox_archive: Path) -> Path:
    """The root of a containerd that was used, and has ended."""
    folder = tmp_path_factory.mktemp("containerd")
    other = folder / "other.tar"
    skopeo_copy(f"oci:{layout}:latest", f"oci-archive:{other}:registry.test/other:1")
    with run_containerd(folder) as containerd:
        containerd.ctr("images", "import", str(busybox_archive))
        containerd.ctr("images", "label", BUSYBOX, "deck=upper")
        containerd.ctr("containers", "create", BUSYBOX, "box")
        containerd.ctr("leases", "create", "--id", "keep")
        for number in range(_MANY):
            containerd.ctr("content", "ingest", f"ref-{number}", input=f"blob {number}")
        containerd.ctr("images", "tag", BUSYBOX, "second:1")
        containerd.namespace = f"{containerd.namespace}-two"
        containerd.ctr("images", "import", str(busybox_archive))
        containerd.ctr("namespaces", "label", containerd.namespace, "hull=red")
        containerd.ctr("images", "import", str(other))
        with pytest.raises(AssertionError, match="in use"):
            _lock(folder / "root")
    return folder / "root"


def _lock(root: Path) -> None:
    from orlop.errors import FailedPrecondition
    from orlop.upkeep.containerd import opened

    try:
        with opened(root):
            pass
    except FailedPrecondition as error:
        raise AssertionError(str(error)) from error


@pytest.fixture
def near(orlopd: Orlopd, used: Path) -> Iterator[Path]:
    """The same on the filesystem of the private orlopd."""
    path = orlopd.folder / "containerd"
    shutil.copytree(used, path, symlinks=True)
    yield path
    shutil.rmtree(path)


def _namespaces(orlopd: Orlopd) -> list[str]:
    return sorted(
        name for name in orlopd.ctr("namespaces", "ls", "-q").stdout.split()
        if name.startswith("compared-")
    )  # fmt: skip


def _images(orlopd: Orlopd, namespace: str) -> list[str]:
    return sorted(orlopd.ctr("images", "ls", "-q", namespace=namespace).stdout.split())


def _modes(root: Path) -> dict[str, int]:
    """What a containerd has: its files are not ours, whatever other names they get."""
    return {path.name: path.stat().st_mode for path in (root / _BLOBS).iterdir()}


def _settle(orlopd: Orlopd) -> None:
    """What nothing keeps must not go while it is looked at."""
    for name in _namespaces(orlopd):
        orlopd.wait_for(
            lambda name=name: (  # type: ignore[misc]
                "adopt-" not in orlopd.ctr("leases", "ls", namespace=name).stdout
            )
        )
    with orlopd.connect() as connection:
        leases.collect(connection)


def test_all_is_here_and_runs(orlopd: Orlopd, near: Path) -> None:
    modes = _modes(near)
    done = orlopd.orlop("store", "adopt", str(near))
    one, two = _namespaces(orlopd)
    assert f"container {one}/box is not taken" in done.stderr
    assert _images(orlopd, one) == [BUSYBOX, "second:1"]
    assert _images(orlopd, two) == [BUSYBOX, "registry.test/other:1"]
    assert "deck=upper" in orlopd.ctr("images", "ls", namespace=one).stdout
    assert "hull=red" in orlopd.ctr("namespaces", "ls").stdout
    assert "keep" in orlopd.ctr("leases", "ls", "-q", namespace=one).stdout.split()
    _settle(orlopd)
    ours = {path.name: path for path in orlopd.root.glob("content/blobs/sha256/*")}
    theirs = {path.name: path for path in (near / _BLOBS).iterdir()}
    kept = orlopd.ctr("content", "ls", "-q", namespace=one).stdout.split()
    assert {digest.partition(":")[2] for digest in kept} <= ours.keys() <= theirs.keys()
    assert all(path.samefile(theirs[name]) for name, path in ours.items())
    assert _modes(near) == modes
    assert not list((orlopd.root / "content/trash").iterdir())
    assert re.search(r"\D[3-9] shared", done.stderr)  # an image that both namespaces have
    assert "(300" not in done.stderr  # linked: some hundred of them, and what images need
    shutil.rmtree(near)
    near.mkdir()
    orlopd.namespace, usual = one, orlopd.namespace
    try:
        done = orlopd.orlop("run", "--rm", BUSYBOX, "echo", "here")
        assert done.stdout == "here\n"
        assert orlopd.orlop("store", "check").stdout == ""
    finally:
        orlopd.namespace = usual


def test_from_another_filesystem_and_again(orlopd: Orlopd, used: Path) -> None:
    """It is copied; what is here is not taken twice, and stays if it is another."""
    orlopd.orlop("store", "adopt", str(used))
    one, two = _namespaces(orlopd)
    _settle(orlopd)
    source = orlopd.root.stat().st_dev != used.stat().st_dev
    links = {path.stat().st_nlink for path in orlopd.root.glob("content/blobs/sha256/*")}
    assert links == ({1} if source else {2})
    orlopd.ctr("images", "rm", "second:1", namespace=one)
    orlopd.ctr("images", "tag", "--force", "registry.test/other:1", BUSYBOX, namespace=two)
    target = orlopd.ctr("images", "ls", namespace=two).stdout
    done = orlopd.orlop("store", "adopt", str(used), check=False)
    assert done.stdout.split() == ["image", f"{one}/second:1"]
    assert (done.returncode, orlopd.ctr("images", "ls", namespace=two).stdout) == (1, target)
    assert f'image "{BUSYBOX}" is another one here' in done.stderr


def test_what_is_damaged_is_not_taken(orlopd: Orlopd, near: Path) -> None:
    layer = max((near / _BLOBS).iterdir(), key=lambda path: path.stat().st_size)
    layer.chmod(0o600)
    with layer.open("r+b") as file:
        file.write(b"damage")
    done = orlopd.orlop("store", "adopt", str(near), check=False)
    assert done.returncode == 1
    assert f"{layer.name} is not taken: its bytes have another digest" in done.stderr
    assert not (orlopd.root / "content/blobs/sha256" / layer.name).exists()
    database = near / _DATABASE
    good = database.read_bytes()
    for bad in (b"no bolt", good[:40_000], good[:8192] + bytes(len(good) - 8192)):
        database.write_bytes(bad)
        done = orlopd.orlop("store", "adopt", str(near), check=False)
        assert (done.returncode, "no bolt database, or damaged" in done.stderr) == (1, True)
    database.unlink()
    assert "is no root of containerd" in orlopd.orlop(
        "store", "adopt", str(near), check=False
    ).stderr  # fmt: skip


def test_one_meta_page_is_enough(near: Path, orlopd: Orlopd) -> None:
    from orlop.upkeep.containerd import opened

    database = near / _DATABASE
    good = database.read_bytes()
    with opened(near) as root:
        before = [namespace.name for namespace in root.namespaces()]
    for begin in (0, 4096):
        database.write_bytes(good[:begin] + bytes(100) + good[begin + 100 :])
        with opened(near) as root:
            assert [namespace.name for namespace in root.namespaces()] == before


def test_an_adoption_that_is_cancelled_leaves_nothing(orlopd: Orlopd, near: Path) -> None:
    """Its worker is killed while it has a file of ours that it has not told of."""
    blob = max((near / _BLOBS).iterdir(), key=lambda path: path.stat().st_size)
    blob.unlink()
    os.mkfifo(blob)  # whose reading takes as long as it is to
    trash = orlopd.root / "content/trash"
    with orlopd.connect() as connection:
        answers = connection.store.adopt(store_pb2.AdoptRequest(path=str(near)))
        writer = os.open(blob, os.O_WRONLY)  # it cannot be cloned, and is linked
        try:
            orlopd.wait_for(lambda: any(path.is_fifo() for path in trash.iterdir()))
            answers.close()
        finally:
            os.close(writer)
    orlopd.wait_for(lambda: not any(name == "orlop-adopt" for _, name in orlopd.processes()))
    orlopd.wait_for(lambda: not list(trash.iterdir()))
