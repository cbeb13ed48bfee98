"""A reader beside the process that has the database for itself."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from orlop.errors import Unavailable
from orlop.metadata import Database, access
from tests.patience import patient

_READ = """
import sys
from pathlib import Path
from orlop.metadata import access
access._is_on_btrfs = lambda _: True
for _ in range(60):
    with access.reading(Path(sys.argv[1])) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = [row[0] for row in connection.execute("SELECT name FROM namespaces")]
        assert len(names) == 20 and len({name.partition("-")[0] for name in names}) == 1, names
"""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as if it were on btrfs; files are copied, as they cannot be cloned."""
    monkeypatch.setattr(access, "_is_on_btrfs", lambda _: True)
    return tmp_path


def test_what_is_read_is_the_state_of_one_moment(alone: Path) -> None:
    """While the log is moved to the database, and begun anew, all the time."""
    path = alone / "meta.db"
    with closing(Database(path)) as database:
        database._writer.execute("PRAGMA wal_autocheckpoint = 5")
        _write(database, 0)
        with subprocess.Popen([sys.executable, "-c", _READ, str(path)]) as reader:
            end = time.monotonic() + patient(60)
            number = 0
            while reader.poll() is None and time.monotonic() < end:
                number += 1
                _write(database, number)
            reader.kill()
        assert reader.returncode == 0
        assert not Path(f"{path}-shm").exists()
    assert [each.name for each in alone.iterdir()] == ["meta.db"]


def _write(database: Database, number: int) -> None:
    with database.write() as tx:
        tx.execute("DELETE FROM namespaces")
        names = [(f"{number}-{'x' * 200}{each}",) for each in range(20)]
        tx.executemany("INSERT INTO namespaces VALUES (?)", names)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_copy(
    alone: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with closing(Database(alone / "meta.db")) as database:
        _write(database, 0)

    def mkdtemp(prefix: str, dir: Path | None = None) -> str:
        if dir is not None:
            raise OSError(number, os.strerror(number), str(dir))
        path = elsewhere / prefix
        path.mkdir()
        return str(path)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with access.reading(alone / "meta.db") as connection:
        assert connection.execute("SELECT count(*) FROM namespaces").fetchone() == (20,)
    assert list(elsewhere.iterdir()) == []


def test_a_log_that_is_always_begun_anew(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and no copy is left."""
    with closing(Database(alone / "meta.db")) as database:
        before = set(alone.iterdir())
        salts = iter(range(10_000))
        monkeypatch.setattr(access, "_salts", lambda _: next(salts))
        with pytest.raises(Unavailable, match="changes too quickly"), access.reading(database.path):
            pass
        assert set(alone.iterdir()) == before
