"""Fixtures that all tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd
from tests.registry_fixture import build_busybox, run_registry, skopeo_copy

BUSYBOX = "docker.io/library/busybox:latest"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real containers need root: say so once, clearly, rather than fail in a hundred ways."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            raise pytest.UsageError("these tests need root: they run real containers")


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout of the busybox image."""
    path = tmp_path_factory.mktemp("image") / "layout"
    build_busybox(path)
    return path


@pytest.fixture(scope="session")
def busybox_archive(layout: Path) -> Path:
    """The busybox image as a docker archive."""
    path = layout.parent / "busybox.tar"
    skopeo_copy(f"oci:{layout}:latest", f"docker-archive:{path}:{BUSYBOX}")
    return path


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[str]:
    """A registry with `test/busybox:latest`; its host:port."""
    with run_registry(tmp_path_factory.mktemp("registry")) as host:
        skopeo_copy(f"oci:{layout}:latest", f"docker://{host}/test/busybox:latest")
        yield host


def _private_daemon() -> Iterator[Orlopd]:
    # Short, since sockets live below it.
    daemon = Orlopd(Path(tempfile.mkdtemp(prefix="orlop-")))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def orlopd() -> Iterator[Orlopd]:
    """A daemon that the tests of a module share."""
    yield from _private_daemon()


@pytest.fixture
def fresh_orlopd() -> Iterator[Orlopd]:
    """A daemon of a test's own: to be killed, restarted, filled."""
    yield from _private_daemon()


@pytest.fixture(scope="module")
def busybox(orlopd: Orlopd, busybox_archive: Path) -> str:
    """The busybox image in the shared daemon; its name."""
    orlopd.ctr("images", "import", str(busybox_archive))
    return BUSYBOX


@pytest.fixture
def fresh_busybox(fresh_orlopd: Orlopd, busybox_archive: Path) -> str:
    """The busybox image in the test's own daemon; its name."""
    fresh_orlopd.ctr("images", "import", str(busybox_archive))
    return BUSYBOX
