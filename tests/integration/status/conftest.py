from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser_fixture import Browser, browsing
from tests.status_fixture import Shipyard


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser of a module's tests, to which each leaves an empty page and no complaint."""
    yield chromium
    chromium.open("about:blank")
    chromium.complaints()


@pytest.fixture
def yard(tmp_path: Path, layout: Path) -> Shipyard:
    return Shipyard(tmp_path, layout)
