"""`orlop system`: what is used of the disk, and what can go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orlop.client import leases, usage
from orlop.errors import Unavailable
from orlop.wire.services import containers_pb2
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def _df(orlopd: Orlopd) -> dict[str, dict[str, Any]]:
    lines = orlopd.orlop("system", "df", "--format", "json").stdout.splitlines()
    return {row["Type"]: row for row in map(json.loads, lines)}


def _usage(orlopd: Orlopd) -> usage.Usage:
    with orlopd.connect() as connection:
        return usage.of(connection)


def _kept(found: usage.Usage) -> tuple[int, int]:
    """Bytes of images, and of all but what is waiting to be collected."""
    return found.images_size, found.total - found.held


def test_what_is_used(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "--name", "ended", busybox, "sh", "-c", "head -c 3000000 /dev/zero > /x")
    orlopd.orlop("run", "-d", "--name", "runs", busybox, "sleep", "1000")
    before = _usage(orlopd)
    (image,) = before.images
    assert (image.name, image.used, image.unique) == (busybox, True, image.size)
    stored = [path.stat().st_size for path in (orlopd.root / "content/blobs").rglob("*")
              if path.is_file()]  # fmt: skip
    assert image.size > sum(stored) / 2
    sizes = {each.id: (each.size, each.alive) for each in before.containers}
    by_name = sorted(sizes.values())
    assert by_name[1][0] >= 3_000_000 > by_name[0][0]
    assert [alive for _, alive in by_name] == [True, False]
    orlopd.orlop("tag", busybox, "second:1")
    after = _usage(orlopd)
    assert [each.unique for each in after.images] == [0, 0]
    assert _kept(after) == _kept(before)
    rows = _df(orlopd)
    assert (rows["Images"]["TotalCount"], rows["Images"]["Active"]) == (2, 1)
    assert rows["Containers"]["Reclaimable"].startswith("2.9 MiB")
    shown = orlopd.orlop("system", "df", "-v").stdout
    assert "docker.io/library/second:1" in shown and "container" in shown
    orlopd.orlop("rm", "-f", "ended", "runs")


def test_what_is_not_in_use_goes(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    orlopd.orlop("run", "--name", "ended", busybox, "true")
    orlopd.orlop("create", "--name", "new", "--restart", "always", busybox, "true")
    orlopd.orlop("run", "-d", "--name", "runs", busybox, "sleep", "1000")
    blob = tmp_path / "blob"
    blob.write_bytes(b"x" * 100_000)
    with blob.open("rb") as stdin:
        orlopd.ctr("content", "ingest", "nobody", stdin=stdin)
    refused = orlopd.orlop("system", "prune", "-a", check=False)
    assert refused.returncode == 1
    assert len(_usage(orlopd).containers) == 3
    shown = orlopd.orlop("system", "prune", "-a", "-f").stdout
    assert shown.splitlines()[-1].startswith("reclaimed ")
    left = _usage(orlopd)
    assert [each.alive for each in left.containers] == [True]
    assert [image.name for image in left.images] == [busybox]
    assert left.held == 0
    orlopd.orlop("rm", "-f", "runs")
    orlopd.orlop("system", "prune", "-a", "-f")
    assert _usage(orlopd).total == 0


def test_layers_that_only_containers_stand_on(orlopd: Orlopd, busybox: str) -> None:
    """Their image's name has moved: they are told, and reclaimed with the last container."""
    orlopd.orlop("run", "--name", "made", busybox, "sh", "-c", "head -c 3000000 /dev/urandom > /x")
    orlopd.orlop("commit", "made", "mine:1")
    orlopd.orlop("create", "--name", "ended", "mine:1", "true")
    orlopd.orlop("run", "-d", "--name", "runs", "mine:1", "sleep", "1000")
    rows = _df(orlopd)
    assert rows["Layers without image"]["TotalCount"] == 0
    before = _usage(orlopd)
    orlopd.orlop("tag", busybox, "mine:1")
    orlopd.orlop("rm", "made")
    moved = _usage(orlopd)
    assert 3_000_000 <= moved.layers < 3_100_000
    assert (moved.layers_count, moved.layers_active, moved.layers_unused) == (1, 1, 0)
    assert moved.total - moved.held - moved.images_size >= moved.layers
    assert moved.images_size + moved.layers <= before.images_size
    orlopd.orlop("rm", "-f", "runs")
    row = _df(orlopd)["Layers without image"]
    assert (row["TotalCount"], row["Active"], row["Size"]) == (1, 0, "2.9 MiB")
    assert row["Reclaimable"] == "2.9 MiB (100%)"
    with orlopd.connect() as connection:
        leases.collect(connection)  # what the moved name has let go of
    reclaimed = orlopd.orlop("system", "prune", "-f").stdout.splitlines()[-1]
    assert reclaimed.startswith("reclaimed 2.9 MiB"), reclaimed
    assert _usage(orlopd).layers == 0


def test_what_cannot_be_measured(orlopd: Orlopd, busybox: str) -> None:
    """It is told, counts as nothing, and stops neither the rest nor its own removal."""
    written = ("sh", "-c", "head -c 3000000 /dev/zero > /x")
    orlopd.orlop("run", "--name", "well", busybox, *written)
    orlopd.orlop("run", "--name", "lost", busybox, *written)
    newest = max(
        orlopd.root.glob("snapshots/overlayfs/snapshots/[0-9]*"), key=lambda p: int(p.name)
    )
    shutil.rmtree(newest)
    with orlopd.connect() as connection:
        record = containers_pb2.Container(
            id="strange", snapshotter="elsewhere", snapshot_key="strange"
        )
        record.runtime.name = "io.containerd.runc.v2"
        record.spec.type_url = "none"
        connection.containers.create(containers_pb2.CreateContainerRequest(container=record))
    told = orlopd.orlop("system", "df").stderr.splitlines()
    assert len(told) == 2
    assert told[0].startswith('orlop: container "lost" is not measured: ') and "/fs" in told[0]
    assert told[1].startswith(
        'orlop: container "strange" is not measured: snapshotter "elsewhere" is not loaded'
    )
    assert _df(orlopd)["Containers"]["Size"] == "2.9 MiB"
    assert orlopd.orlop("store", "df", "-v").stderr == ""
    pruned = orlopd.orlop("system", "prune", "-a", "-f", check=False)
    assert {"well", "lost", busybox} <= set(pruned.stdout.splitlines())
    assert pruned.stderr.splitlines()[:2] == told
    assert pruned.stdout.splitlines()[-1].startswith("reclaimed ")


def test_a_daemon_that_goes_meanwhile_is_no_measure(
    orlopd: Orlopd, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    orlopd.orlop("create", "--name", "one", busybox, "true")
    with orlopd.connect() as connection:
        ask = connection.snapshots.usage

        def late(request: Any) -> Any:
            if request.key in own:
                orlopd.kill9()
            return ask(request)

        listed = connection.containers.list(containers_pb2.ListContainersRequest()).containers
        own = {each.snapshot_key for each in listed}
        monkeypatch.setattr(connection.snapshots, "usage", late)
        with pytest.raises(Unavailable):
            usage.of(connection)
    orlopd.start()
    orlopd.orlop("rm", "one")
