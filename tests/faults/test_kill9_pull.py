"""orlopd is killed in the middle of a pull, again and again; the next pull goes on where it was."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.client.pull import pull_image
from orlop.errors import OrlopError
from tests import layered_image
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import run_registry, skopeo_copy
from tests.slow_proxy import SlowProxy
from tests.tree import describe

pytestmark = pytest.mark.root

KILLS = 20
# What is under way in the sockets of three connections when they are cut: 56 kB in each, mostly,
# and more on a busy machine.
IN_FLIGHT = 3 * 250_000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = tmp_path_factory.mktemp("image") / "layout"
    layered_image.build(layout)
    return layout


@pytest.fixture
def slow(image: Path, tmp_path: Path) -> Iterator[SlowProxy]:
    """A slow way to a registry that has the image as `test/image:latest`."""
    (tmp_path / "registry").mkdir()
    with run_registry(tmp_path / "registry") as host:
        skopeo_copy(f"oci:{image}:latest", f"docker://{host}/test/image:latest")
        proxy = SlowProxy(host, rate=6e6)
        try:
            yield proxy
        finally:
            proxy.close()


def _pull(orlopd: Orlopd, name: str) -> None:
    with suppress(OrlopError), orlopd.connect() as connection:
        pull_image(connection, name)


@pytest.mark.timeout(600)
def test_twenty_kills(orlopd: Orlopd, slow: SlowProxy, image: Path, tmp_path: Path) -> None:
    name = f"{slow.host}/test/image:latest"
    total = sum(path.stat().st_size for path in (image / "blobs/sha256").iterdir())
    goals = [total * number // (KILLS + 1) for number in range(1, KILLS + 1)]
    for goal in goals:
        pull = threading.Thread(target=_pull, args=(orlopd, name))
        pull.start()
        began = time.monotonic()
        while slow.passed < goal + 0.02 * total and time.monotonic() < began + 10:
            time.sleep(0.002)
        assert pull.is_alive()
        orlopd.kill9()
        pull.join()
        orlopd.start()
    with orlopd.connect() as connection:
        pull_image(connection, name)
    assert slow.passed < total + KILLS * IN_FLIGHT
    assert "incomplete" not in orlopd.ctr("images", "check").stdout
    assert _tree(orlopd, name, tmp_path) == _by_umoci(image, tmp_path)


def _tree(orlopd: Orlopd, name: str, tmp_path: Path) -> dict[str, object]:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    orlopd.ctr("images", "mount", name, str(mounted))
    try:
        return dict(describe(mounted))
    finally:
        orlopd.ctr("images", "unmount", "--rm", str(mounted))


def _by_umoci(image: Path, tmp_path: Path) -> dict[str, object]:
    bundle = tmp_path / "bundle"
    subprocess.run(
        ["umoci", "unpack", "--image", f"{image}:latest", str(bundle)],
        check=True, capture_output=True,
    )  # fmt: skip
    return dict(describe(bundle / "rootfs"))
