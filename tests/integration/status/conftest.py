from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser_fixture import Browser, browsing
from tests.status_fixture import Page, Shipyard, shown


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser of all tests, to which each leaves an empty page and no complaint."""
    yield chromium
    chromium.open("about:blank")
    chromium.complaints()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """For the tests that leave nothing on it but the image of busybox."""
    with shown(tmp_path_factory.mktemp("page"), 'hosts = ["Node1.example"]') as made:
        yield made


@pytest.fixture
def yard(tmp_path: Path, layout: Path) -> Shipyard:
    return Shipyard(tmp_path, layout)
