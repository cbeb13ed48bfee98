"""A database that is damaged, and `orlopd check`, which looks where no daemon can."""

from __future__ import annotations

import subprocess

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

_PAGE = 4096


def _run(orlopd: Orlopd, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*orlopd.command(), *command], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_damaged_page(orlopd: Orlopd, busybox: str) -> None:
    """Calls that need it say so, the others go on; a good copy has all as it was."""
    assert "in use by another orlopd" in _run(orlopd, "check").stderr
    orlopd.stop()
    done = _run(orlopd, "check")
    assert (done.returncode, done.stderr) == (0, "")
    database = orlopd.root / "metadata.db"
    good = database.read_bytes()
    page = good.index(busybox.encode()) // _PAGE
    bad = bytearray(good)
    bad[page * _PAGE : page * _PAGE + 64] = b"\xff" * 64
    database.write_bytes(bad)
    done = _run(orlopd, "check")
    assert done.returncode == 1
    assert f"database {database}: " in done.stdout
    orlopd.start()
    failed = orlopd.orlop("images", check=False)
    assert f'database "{database}" is damaged' in failed.stderr
    assert "put a backup in its place" in failed.stderr
    found = orlopd.orlop("store", "check", check=False)
    assert (found.returncode, found.stdout.split("\n")[1].split()[0]) == (1, "database")
    orlopd.stop()
    for path in orlopd.root.glob("metadata.db*"):
        path.unlink()
    database.write_bytes(good)
    orlopd.start()
    assert orlopd.orlop("run", "--rm", busybox, "echo", "well").stdout == "well\n"


def test_no_database_at_all(orlopd: Orlopd) -> None:
    orlopd.stop()
    database = orlopd.root / "metadata.db"
    database.write_bytes(b"no database" * 1000)
    done = _run(orlopd)
    assert done.returncode == 1
    assert f'database "{database}" is damaged' in done.stderr and "Traceback" not in done.stderr
    for path in orlopd.root.glob("metadata.db*"):
        path.unlink()
    assert "there is no database" in _run(orlopd, "check").stderr
