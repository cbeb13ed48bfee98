"""Who may take the place of what is at a socket's path."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.rpc.dispatch import claim_socket_path


def test_a_stale_socket_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    claim_socket_path(path)
    assert not path.exists()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    claim_socket_path(tmp_path / "a/b/s")
    assert (tmp_path / "a/b").is_dir()


@pytest.mark.parametrize("backlog", [0, 10])
def test_a_live_one_does_not_not_even_with_a_full_queue(tmp_path: Path, backlog: int) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(str(path))
        live.listen(backlog)
        client.connect(str(path))
        with pytest.raises(FailedPrecondition, match="in use"):
            claim_socket_path(path)


def test_anything_else_stays(tmp_path: Path) -> None:
    file, folder, link = tmp_path / "f", tmp_path / "d", tmp_path / "l"
    file.write_text("precious")
    folder.mkdir()
    link.symlink_to(file)
    for path in (file, folder, link):
        with pytest.raises(FailedPrecondition, match="not a socket"):
            claim_socket_path(path)
    assert file.read_text() == "precious"
    assert link.is_symlink()


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="longer than"):
        claim_socket_path(tmp_path / ("x" * 108))
