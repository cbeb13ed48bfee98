"""Deletion of trees that nobody else would get deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orlop.sys.removal import remove_tree
from tests.nasty_tree import deep


def test_deeper_than_a_path_can_tell(tmp_path: Path) -> None:
    deep(tmp_path / "tree", 5000)
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_links_are_deleted_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/link").symlink_to(kept)
    (tree / "link").symlink_to(kept)
    (tree / "a/file").write_text("x")
    os.mkfifo(tree / "a/pipe")
    remove_tree(tree)
    assert (kept / "file").read_text() == "x"
    assert list(tmp_path.iterdir()) == [kept]
    (tmp_path / "link").symlink_to(kept)
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "link")
    assert (kept / "file").exists()


def test_relative_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        remove_tree(b"a", dir_fd=fd)
    finally:
        os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_nothing_there(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for count in range(3):
        deep(tmp_path / str(count), 20)
        remove_tree(tmp_path / str(count))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before  # threads of others may end
