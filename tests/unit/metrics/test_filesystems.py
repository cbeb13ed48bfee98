from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orlop.metrics.filesystems import Filesystems, Layer
from orlop.metrics.measuring import AT_ONCE, measure
from orlop.sys.usage import disk_usage
from tests.daemon_fixture import Orlopd


def _measured(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, int, int, float]]:
    told: list[tuple[int, int, int, float]] = []
    report: Callable[[Any], None] = told.extend
    monkeypatch.setattr(os, "nice", lambda _: 0)  # the job is at home in a process of its own
    source = os.open(tmp_path / "list", os.O_RDWR | os.O_CREAT)
    try:
        os.write(source, json.dumps(folders).encode())
        measure({}, [source], report)
    finally:
        os.close(source)
    return told


def test_what_cannot_be_read_does_not_hide_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(100_000))
    folders = [str(tmp_path / name) for name in ("a", "none", "list", "a")] * AT_ONCE
    told = _measured(folders, tmp_path, monkeypatch)
    assert [number for number, *_ in told] == list(range(len(folders)))
    size, inodes = disk_usage(str(tmp_path / "a"))
    assert inodes == 2
    assert 100_000 <= size < 120_000
    wanted = [(size, inodes), (-1, 0), (-1, 0), (size, inodes)] * AT_ONCE
    assert [(each[1], each[2]) for each in told] == wanted


def test_a_snapshotter_that_is_not_there_any_more(caplog: pytest.LogCaptureFixture) -> None:
    forks: Any = None
    filesystems = Filesystems(forks, {}, 60)
    layers = [Layer("n", "lazy", "a"), Layer("n", "lazy", "b"), Layer("n", "", "")]
    assert filesystems.known(layers) == {}
    filesystems.refresh()
    Orlopd.wait_for(lambda: "cannot be measured" in caplog.text)
    Orlopd.wait_for(lambda: filesystems.failed() == 2)
    filesystems.close()
    assert 'of 2 containers cannot be measured: there is no snapshotter "lazy"' in caplog.text


def test_links_count_once_and_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(bytes(1 << 20))
    inside.mkdir()
    (inside / "file").write_bytes(bytes(50_000))
    (inside / "again").hardlink_to(inside / "file")
    (inside / "out").symlink_to(outside)
    size, inodes = disk_usage(str(inside))
    assert inodes == 3
    assert size < 1 << 18


def test_folders_that_turn_into_links_meanwhile(tmp_path: Path) -> None:
    """What is outside is never counted, whatever is done to the tree while it is walked."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    for number in range(50):
        (outside / f"{number}").write_bytes(b"")
    inside.mkdir()
    for number in range(20):
        (inside / f"d{number}").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for number in range(20):
                folder = inside / f"d{number}"
                folder.rmdir()
                folder.symlink_to(outside)
                folder.unlink()
                folder.mkdir()

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(300):
            # Names that are made anew while a folder is read may be met twice.
            assert disk_usage(str(inside))[1] < 50
    finally:
        stop.set()
        swapping.join()


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk_usage(str(tmp_path / "none"))
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        disk_usage(str(tmp_path / "file"))


def test_deeper_than_a_path_can_be_long(tmp_path: Path) -> None:
    """As a container makes it that wants not to be measured."""
    here, name = Path.cwd(), Path("n" * 200)
    os.chdir(tmp_path)
    try:
        for _ in range(40):
            name.mkdir()
            os.chdir(name)
        Path("file").write_bytes(b"x" * 100_000)
        size, inodes = disk_usage(str(tmp_path))
        assert inodes == 42
        assert size >= 100_000
    finally:  # from below, for nothing else reaches it
        Path("file").unlink(missing_ok=True)
        while Path.cwd() != tmp_path:
            os.chdir("..")
            name.rmdir()
        os.chdir(here)
