"""One part of a file is written anew, and the rest stays."""

from __future__ import annotations

from pathlib import Path

from orlop.network.hosts_files import rewrite


def test_each_part_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    rewrite(path, others=b"x\n")  # there is none, as of a container that has ended
    assert not path.exists()
    path.write_bytes(b"127.0.0.1 localhost")
    inode = path.stat().st_ino
    rewrite(path, others=b"10.0.0.2 web\n")
    with path.open("ab") as appending:
        appending.write(b"10.0.0.9 mine\n")
    rewrite(path, others=b"10.0.0.3 web\n10.0.0.4 db\n")
    lines = path.read_text().splitlines()
    assert lines[0] == "127.0.0.1 localhost" and lines[-1] == "10.0.0.9 mine"
    assert lines[2:4] == ["10.0.0.3 web", "10.0.0.4 db"] and len(lines) == 6
    rewrite(path, own=b"127.0.0.1 other\n")
    assert path.read_text().splitlines()[2:4] == ["10.0.0.3 web", "10.0.0.4 db"]
    assert "localhost" not in path.read_text() and "mine" not in path.read_text()
    rewrite(path, others=b"")
    assert path.read_text() == "127.0.0.1 other\n"
    path.write_bytes(much := bytes(2 << 20))
    rewrite(path, others=b"x\n")
    assert path.read_bytes() == much
    assert path.stat().st_ino == inode
