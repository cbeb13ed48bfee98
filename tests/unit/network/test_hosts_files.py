"""One part of a file is written anew, and the rest stays."""

from __future__ import annotations

from pathlib import Path

from orlop.network.hosts_files import amended, rewrite


def test_the_section_of_others_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    rewrite(path, b"x\n")  # there is none, as of a container that has ended
    assert not path.exists()
    path.write_bytes(b"127.0.0.1 localhost")
    inode = path.stat().st_ino
    rewrite(path, b"10.0.0.2 web\n")
    with path.open("ab") as appending:
        appending.write(b"10.0.0.9 mine\n")
    rewrite(path, b"10.0.0.3 web\n10.0.0.4 db\n")
    lines = path.read_text().splitlines()
    assert lines[0] == "127.0.0.1 localhost" and lines[-1] == "10.0.0.9 mine"
    assert lines[2:4] == ["10.0.0.3 web", "10.0.0.4 db"] and len(lines) == 6
    rewrite(path, b"")
    assert path.read_text() == "127.0.0.1 localhost\n10.0.0.9 mine\n"
    path.write_bytes(much := bytes(2 << 20))
    rewrite(path, b"x\n")
    assert path.read_bytes() == much
    assert path.stat().st_ino == inode


def test_own_lines_come_and_go_and_those_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    was = b"127.0.0.1 localhost\n10.0.0.2 web\n"
    path.write_bytes(b"127.0.0.1 localhost\n10.0.0.2 web\n10.0.0.9 mine")
    now = b"127.0.0.1 localhost\n10.1.0.2 web\n"
    moved = amended(path.read_bytes(), was, now)
    assert moved == b"127.0.0.1 localhost\n10.0.0.9 mine\n10.1.0.2 web\n"
    assert amended(moved, was, now) == moved  # half of it was done before a crash
    # What the container has taken away does not come again; the section of others stays the last.
    path.write_bytes(b"10.1.0.2 web\n")
    rewrite(path, b"10.0.0.3 db\n")
    both = amended(path.read_bytes(), now, now + b"10.2.0.2 web\n")
    assert b"localhost" not in both
    assert both.index(b"10.2.0.2") < both.index(b"10.0.0.3") < both.index(b"End of these")
