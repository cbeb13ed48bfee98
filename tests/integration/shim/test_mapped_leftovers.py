"""Layers with mapped ids that are mounted for a moment, and what a kill leaves of them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.shim.cleanup import cleanup
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import mount_points, unmount_all
from tests.integration.shim.harness import NAMESPACE

pytestmark = pytest.mark.root


@pytest.fixture
def bundle(folder: Path) -> Iterator[Path]:
    made = folder / "bundle"
    made.mkdir()
    yield made
    unmount_all(folder)


def _layers(folder: Path) -> list[str]:
    layers = [folder / name for name in ("1", "2")]
    for each in layers:
        each.mkdir()
        (each / "file").write_text("precious")
    return [str(each) for each in layers]


def test_no_layer_can_be_deleted_by_way_of_them(folder: Path, bundle: Path) -> None:
    mapping = IdMapping("0:200000:65536", "0:200000:65536")
    with mapping.lowers(_layers(folder), bundle) as mapped:
        for each in mapped:
            file = Path(each, "file")
            assert (file.stat().st_uid, file.read_text()) == (200000, "precious")
            with pytest.raises(OSError) as caught:
                file.unlink()
            assert caught.value.errno == errno.EROFS
        assert list(mount_points(bundle))
    assert not list(bundle.iterdir())


def test_a_bundles_cleanup_unmounts_them(folder: Path, bundle: Path) -> None:
    layers = _layers(folder)
    left = bundle / "orlop-idmap-x/0"
    left.mkdir(parents=True)
    IdMapping("0:200000:65536", "0:200000:65536").mount(layers[0], left)
    cleanup(NAMESPACE, "one", str(bundle))
    assert not list(mount_points(bundle))
    assert Path(layers[0], "file").read_text() == "precious"
