"""What clients see of garbage collection: the same as with Debian's containerd, and safe."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orlop.client.pull import pull_image
from orlop.errors import OrlopError
from orlop.wire.services import images_pb2
from tests.containerd_fixture import Containerd, run_containerd
from tests.daemon_fixture import BUSYBOX, Orlopd

pytestmark = pytest.mark.root

EXPIRE = "containerd.io/gc.expire"


@pytest.fixture(params=["orlopd", "containerd"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orlopd | Containerd]:
    """Either daemon: proof that the tests ask for what containerd does."""
    if request.param == "orlopd":
        yield request.getfixturevalue("orlopd")
        return
    with run_containerd(tmp_path) as containerd:
        yield containerd


def _listed(daemon: Orlopd | Containerd, *command: str) -> list[str]:
    return daemon.ctr(*command, "-q").stdout.split()


def _blobs(daemon: Orlopd | Containerd) -> list[str]:
    return _listed(daemon, "content", "ls")


def _snapshots(daemon: Orlopd | Containerd) -> list[str]:
    lines = daemon.ctr("snapshots", "ls").stdout.splitlines()[1:]
    return [line.split()[0] for line in lines]


def _ingest(daemon: Orlopd | Containerd, tmp_path: Path, text: str) -> str:
    (tmp_path / "blob").write_text(text)
    daemon.ctr("content", "ingest", text, input=text)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _collect(daemon: Orlopd | Containerd) -> None:
    daemon.ctr("leases", "create", "--id", "one")
    daemon.ctr("leases", "rm", "--sync", "one")


def test_an_image_takes_all_that_was_its_own_along(
    daemon: Orlopd | Containerd, busybox_archive: Path
) -> None:
    daemon.ctr("images", "import", str(busybox_archive))
    daemon.ctr("images", "tag", BUSYBOX, "second/name:1")
    _collect(daemon)
    before = _blobs(daemon), _snapshots(daemon)
    assert all(before)
    daemon.ctr("images", "rm", "--sync", BUSYBOX)
    assert (_blobs(daemon), _snapshots(daemon)) == before
    daemon.ctr("images", "rm", "--sync", "second/name:1")
    assert (_blobs(daemon), _snapshots(daemon)) == ([], [])


def test_it_goes_soon_without_being_waited_for(
    daemon: Orlopd | Containerd, busybox_archive: Path
) -> None:
    daemon.ctr("images", "import", str(busybox_archive))
    daemon.ctr("images", "rm", BUSYBOX)
    daemon.wait_for(lambda: _blobs(daemon) == [] and _snapshots(daemon) == [])


def test_a_container_keeps_its_files(daemon: Orlopd | Containerd, busybox_archive: Path) -> None:
    daemon.ctr("images", "import", str(busybox_archive))
    daemon.ctr("run", "-d", BUSYBOX, "box", "sleep", "1000")
    daemon.ctr("images", "rm", "--sync", BUSYBOX)
    assert _blobs(daemon) == []
    assert len(_snapshots(daemon)) == 2
    assert daemon.ctr("tasks", "exec", "--exec-id", "e", "box", "echo", "here").stdout == "here\n"
    daemon.ctr("tasks", "rm", "-f", "box", check=False)
    daemon.ctr("containers", "rm", "box")
    daemon.wait_for(lambda: _snapshots(daemon) == [])


@pytest.mark.fresh
def test_labels_and_leases_of_ctr(orlopd: Orlopd, tmp_path: Path) -> None:
    held, rooted = (_ingest(orlopd, tmp_path, text) for text in ("held", "rooted"))
    orlopd.ctr("content", "label", rooted, "containerd.io/gc.root=now",
               f"containerd.io/gc.ref.content.0={held}")  # fmt: skip
    _ingest(orlopd, tmp_path, "nobody's")
    _collect(orlopd)
    assert sorted(_blobs(orlopd)) == sorted((held, rooted))
    orlopd.ctr("content", "label", rooted, "containerd.io/gc.ref.content.0=")
    _collect(orlopd)
    assert _blobs(orlopd) == [rooted]


def test_what_ends_by_itself(orlopd: Orlopd) -> None:
    orlopd.ctr("leases", "create", "--id", "brief", "--expires", "25s")
    end = (datetime.now(UTC) + timedelta(seconds=25)).isoformat()
    with orlopd.connect(lease="brief") as connection:
        connection.images.create(
            images_pb2.CreateImageRequest(
                image=images_pb2.Image(
                    name="brief",
                    labels={EXPIRE: end},
                    target={
                        "media_type": "application/x", "size": 1, "digest": f"sha256:{'0' * 64}",
                    },
                )
            )
        )  # fmt: skip
    assert orlopd.ctr("images", "ls", "-q").stdout == "brief\n"
    orlopd.wait_for(lambda: _listed(orlopd, "leases", "ls") == [], timeout=60)
    orlopd.wait_for(lambda: orlopd.ctr("images", "ls", "-q").stdout == "")


def test_collections_never_take_what_a_pull_brings(orlopd: Orlopd, registry: str) -> None:
    """Pulls of one image and removals of it, all the time: each pull is whole when it is done."""
    name = f"{registry}/test/busybox:latest"
    over = threading.Event()

    def remove() -> None:
        while not over.is_set():
            orlopd.ctr("images", "rm", name, check=False)
            time.sleep(0.05)

    with orlopd.connect() as connection:
        pull_image(connection, name)
        connection.images.create(  # holds what the pulls are about, but not for ever
            images_pb2.CreateImageRequest(
                image=images_pb2.Image(
                    name="anchor",
                    target=connection.images.get(
                        images_pb2.GetImageRequest(name=name)
                    ).image.target,
                )
            )
        )
    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for number in range(12):
            if number == 6:
                orlopd.ctr("images", "rm", "anchor")
            with orlopd.connect() as connection, suppress(OrlopError):
                pull_image(connection, name)
    finally:
        over.set()
        remover.join()
    with orlopd.connect() as connection:
        pull_image(connection, name)
    checked = orlopd.ctr("images", "check").stdout.splitlines()
    assert [line for line in checked if line.startswith(name) and " complete " in line]
    assert orlopd.ctr("run", "--rm", name, "box", "echo", "whole").stdout == "whole\n"


@pytest.mark.timeout(600)
def test_killed_while_it_collects(orlopd: Orlopd, busybox_archive: Path) -> None:
    """Whenever orlopd is killed, the next one has what is kept, and ends what was begun."""
    for number in range(10):
        orlopd.ctr("images", "import", str(busybox_archive))
        orlopd.ctr("images", "tag", BUSYBOX, f"kept/one:{number}")
        orlopd.ctr("images", "rm", BUSYBOX)
        orlopd.ctr("images", "rm", f"kept/one:{number}")
        time.sleep(number * 0.04)
        orlopd.kill9()
        orlopd.start()
        orlopd.wait_for(lambda: _blobs(orlopd) == [] and _snapshots(orlopd) == [])
        blobs = orlopd.root / "content/blobs"  # of which files go after their rows
        orlopd.wait_for(lambda blobs=blobs: not any(path.is_file() for path in blobs.rglob("*")))  # type: ignore[misc]
    orlopd.wait_for(lambda: not list((orlopd.root / "snapshots/overlayfs/snapshots").iterdir()))


def test_what_a_run_unpacks_stays_with_its_image(orlopd: Orlopd, registry: str) -> None:
    name = f"{registry}/test/busybox:latest"
    orlopd.orlop("pull", "--no-unpack", name)
    assert _snapshots(orlopd) == []
    orlopd.orlop("run", "--rm", name, "true")
    _collect(orlopd)
    assert len(_snapshots(orlopd)) == 1
    orlopd.orlop("rmi", name)
    assert (_blobs(orlopd), _snapshots(orlopd)) == ([], [])
