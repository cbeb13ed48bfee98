"""What a backup keeps of the database is decided for every table that there is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from orlop.metadata import Database
from orlop.upkeep.saving import _NOT_SAVED

_SAVED = {
    "content", "gc_log", "images", "labels", "lease_resources", "leases", "namespaces",
    "network_subnets", "networks",
}  # fmt: skip


def test_every_table_is_saved_or_not(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "metadata.db")) as database, database.read() as tx:
        tables = {
            row["name"]
            for row in tx.all("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row["name"].startswith("sqlite_")
        }
    dropped = {
        statement.removeprefix("DELETE FROM ")
        for statement in _NOT_SAVED
        if " WHERE " not in statement
    }
    assert dropped | _SAVED == tables
    assert not dropped & _SAVED
