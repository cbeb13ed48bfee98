"""`orlop store df`: what is stored, and who shares it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from orlop.client import leases
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def _df(orlopd: Orlopd, *options: str) -> list[dict[str, Any]]:
    done = orlopd.orlop("store", "df", "--format", "json", *options)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.fresh
def test_what_takes_how_much(orlopd: Orlopd, busybox: str) -> None:
    sparse = orlopd.root / "content/ingest/sparse"
    sparse.mkdir()
    with (sparse / "data").open("wb") as file:
        os.truncate(file.fileno(), 3 << 30)
    with orlopd.connect() as connection:
        leases.collect(connection)  # what nothing keeps must not go while it is looked at
    rows = {row["Kind"]: row for row in _df(orlopd)}
    assert {"blobs", "snapshots of overlayfs", "database", "writes begun", "all"} <= rows.keys()
    assert rows["writes begun"]["Size"] == "3.0 GiB"
    assert rows["writes begun"]["OnDisk"].endswith((" B", " KiB"))
    blobs = list(orlopd.root.glob("content/blobs/*/*"))
    assert rows["blobs"]["Files"] == len(blobs)
    assert "damaged" not in rows  # an empty folder is no file
    assert rows["all"]["Files"] == sum(row["Files"] for row in rows.values()) - rows["all"]["Files"]


def test_who_shares_what(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("tag", busybox, "second:1")
    orlopd.orlop("run", "--name", "one", busybox, "true")
    rows = _df(orlopd, "-v")
    layer = max(orlopd.root.glob("content/blobs/*/*"), key=lambda path: path.stat().st_size)
    (blob,) = [row for row in rows if row["Name"].endswith(layer.name) and row["Kind"] == "blob"]
    both = sorted([busybox, "docker.io/library/second:1"])
    assert (blob["Kind"], blob["SharedBy"], blob["Images"]) == ("blob", 2, both)
    snapshots = {row["SharedBy"] for row in rows if row["Kind"] == "overlayfs"}
    assert snapshots == {0, 2}  # the container's own, and the image's
    orlopd.orlop("rm", "one")
