"""Fixtures that every suite may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import served_fixture
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.lent_daemon import PASSED, Lender
from tests.lying_registry import Registry
from tests.origin_fixture import Node, Starting
from tests.registry_fixture import PREPARED, build_busybox, run_registry, skopeo_copy
from tests.served_fixture import Served, served

# How long an example takes says something about the machine only.
settings.register_profile("orlop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("orlop")
# A shell's background job, and so whatever it starts, would not hear a Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[PASSED] = report.passed and item.stash.get(PASSED, True)
    return report


@pytest.fixture(scope="session")
def lender() -> Iterator[Lender]:
    """Lends an orlopd to one test after the other."""
    with closing(Lender()) as made:
        yield made


@pytest.fixture
def orlopd(request: pytest.FixtureRequest, lender: Lender) -> Iterator[Orlopd]:
    """An orlopd that nobody else has, and a namespace of its own; it must leave nothing behind."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    yield from lender.lend(request.node)


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout of a small image."""
    path = tmp_path_factory.mktemp("image") / "layout"
    build_busybox(path)
    return path


@pytest.fixture(scope="session")
def busybox_archive(layout: Path) -> Path:
    """The archive of the small image."""
    if PREPARED:
        return Path(PREPARED) / "busybox.tar"
    path = layout.parent / "busybox.tar"
    skopeo_copy(f"oci:{layout}:latest", f"docker-archive:{path}:{BUSYBOX}")
    return path


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[str]:
    """A registry with the small image as `test/busybox:latest`; its host:port."""
    with run_registry(tmp_path_factory.mktemp("registry")) as host:
        skopeo_copy(f"oci:{layout}:latest", f"docker://{host}/test/busybox:latest")
        yield host


@pytest.fixture
def busybox(orlopd: Orlopd, busybox_archive: Path) -> str:
    """The name of a small image that the private orlopd has."""
    orlopd.ctr("images", "import", str(busybox_archive))
    return BUSYBOX


@pytest.fixture
def lying() -> Iterator[Registry]:
    """A registry in this process that lies as a test tells it to."""
    made = Registry()
    yield made
    made.close()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    """Starts daemons that serve a registry, each with settings of its own."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(served(tmp_path, settings))


@pytest.fixture
def pushable_daemon(serving: Callable[[str], Served]) -> Served:
    """A daemon whose registry takes pushes."""
    return serving(f'push = true\nname = "{served_fixture.NAME}"\n')


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Starting]:
    """Starts registries in this process, each with settings of its own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(closing(Node(tmp_path, **settings)))


@pytest.fixture
def node(starting: Starting) -> Node:
    """A registry in this process that only shows what it has."""
    return starting(push=False)


@pytest.fixture
def pushable(starting: Starting) -> Node:
    """A registry in this process that takes pushes."""
    return starting(push=True)
