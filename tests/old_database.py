"""A database as an earlier version of orlop left it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path


@contextmanager
def of_version(path: Path, version: int) -> Iterator[sqlite3.Connection]:
    """Make the file with the schema of a version; what is written to it is committed."""
    with closing(sqlite3.connect(path)) as connection:
        for number in range(1, version + 1):
            script = resources.files("orlop.metadata").joinpath(f"schema_v{number}.sql")
            connection.executescript(script.read_text())
        connection.execute(f"PRAGMA user_version = {version}")
        yield connection
        connection.commit()
