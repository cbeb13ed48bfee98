"""Which loop device a file is mounted by."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from orlop.sys import loop
from orlop.sys.loop import attach_to_mount
from tests.disks import is_attached
from tests.patience import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A file that no device shows at the end."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    yield path
    wait_for(lambda: not is_attached(path))


@contextmanager
def shown(image: Path, *options: str) -> Iterator[str]:
    """By somebody else's device."""
    command = ["losetup", "--find", "--show", *options, str(image)]
    device = subprocess.check_output(command, text=True).strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_one_that_shows_it_already(image: Path) -> None:
    with shown(image) as path, closing(attach_to_mount(image)) as device:
        assert device.path == path
        assert loop.shows(path, loop.identity(device))


@pytest.mark.parametrize(
    "options", [["--read-only"], ["--offset", "4096"], ["--sizelimit", "4096"]]
)
def test_one_that_shows_less(image: Path, options: list[str]) -> None:
    with shown(image, *options) as path, closing(attach_to_mount(image)) as device:
        assert device.path != path


def test_another_file(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(4096))
    with shown(other) as path, closing(attach_to_mount(image)) as device:
        assert device.path != path


def test_many_at_once_have_one(image: Path) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        devices = list(pool.map(attach_to_mount, [image] * 24))
        for each in devices:
            stack.callback(each.close)
        assert len({each.path for each in devices}) == 1


def test_no_device_is_to_be_had(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LOOP_CONFIGURE", loop._LOOP_GET_STATUS)  # ENXIO for a free one
    with pytest.raises(OSError, match=r'loop device "/dev/loop\d+" cannot be had: No such device'):
        loop.attach(image, read_only=True)
