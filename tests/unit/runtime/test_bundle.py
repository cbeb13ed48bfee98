"""The end of bundles: what is mounted in them is somebody's data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.runtime import bundle
from orlop.runtime.bundle import Bundles
from orlop.sys.mount import MS_BIND, mount, unmount_all

pytestmark = pytest.mark.root


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A snapshot's folder, with a file in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "file").write_text("precious")
    yield folder
    unmount_all(tmp_path)


def _bundles(folder: Path) -> Bundles:
    for name in ("state", "root"):
        (folder / name).mkdir(exist_ok=True)
    return Bundles(folder / "state", folder / "root")


def test_a_mount_that_was_missed_keeps_its_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundles = _bundles(tmp_path)
    one = bundles.create("ns", "one", b"{}")
    mount(str(data), one.path / "rootfs", "", MS_BIND)
    monkeypatch.setattr(bundle, "unmount_all", lambda _: None)
    one.delete()
    assert (data / "file").read_text() == "precious"
    assert not one.path.exists()
    assert "stays" in caplog.text
    assert _bundles(tmp_path).all() == []
    assert (data / "file").read_text() == "precious"
    monkeypatch.undo()
    bundles.create("ns", "two", b"{}").delete()
    assert _bundles(tmp_path).all() == []
    assert not list((bundles.folder / "ns").iterdir())
    assert (data / "file").read_text() == "precious"


def test_a_bundle_that_is_named_by_a_link_is_unmounted(data: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    one = _bundles(tmp_path / "link").create("ns", "one", b"{}")
    mount(str(data), one.path / "rootfs", "", MS_BIND)
    one.delete()
    assert not list((tmp_path / "real").glob("state/*/ns/*"))
    assert (data / "file").read_text() == "precious"
