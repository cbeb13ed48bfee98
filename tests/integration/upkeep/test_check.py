"""`orlop store check` on a store that was damaged by hand."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orlop.client import leases
from orlop.errors import FailedPrecondition
from orlop.oci import mediatypes
from orlop.oci.digest import Digest
from orlop.sys.mount import Mount, mount_all, unmount
from orlop.wire.services import content_pb2, images_pb2, snapshots_pb2, store_pb2
from orlop.wire.types_pb2 import Descriptor
from tests import layered_image
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import run_registry, skopeo_copy
from tests.slow_proxy import SlowProxy

pytestmark = pytest.mark.root

_YESTERDAY = time.time() - 2 * 86400


def _check(orlopd: Orlopd, *options: str, status: int) -> dict[str, dict[str, Any]]:
    """The findings by kind; there may be several of one kind, of which the last is shown."""
    done = orlopd.orlop("store", "check", "--format", "json", *options, check=False)
    assert done.returncode == status, done.stdout + done.stderr + orlopd.log.read_text()
    return {row["kind"]: row for row in map(json.loads, done.stdout.splitlines())}


def _blob(orlopd: Orlopd, digest: str) -> Path:
    return orlopd.root.joinpath("content", "blobs", *digest.split(":"))


def _blobs(orlopd: Orlopd) -> dict[str, Path]:
    return {
        f"{path.parent.name}:{path.name}": path for path in orlopd.root.glob("content/blobs/*/*")
    }


def _layer(orlopd: Orlopd) -> str:
    return max(_blobs(orlopd).items(), key=lambda item: item[1].stat().st_size)[0]


def _edit(path: Path) -> None:
    """One byte is another, by hand."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _change(orlopd: Orlopd, sql: str, *params: object) -> None:
    with closing(sqlite3.connect(orlopd.root / "metadata.db", timeout=60)) as database:
        database.execute(sql, params)
        database.commit()


def test_a_sound_store(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "--rm", busybox, "true")
    with orlopd.connect() as connection:
        leases.collect(connection)  # what nothing keeps must not go while it is looked at
    done = orlopd.orlop("store", "check")
    assert done.stdout == ""
    assert f"{len(_blobs(orlopd))} blobs" in done.stderr
    assert "no damage" in done.stderr


def test_damaged_blobs_are_fetched_again(orlopd: Orlopd, registry: str) -> None:
    image = f"{registry}/test/busybox:latest"
    orlopd.orlop("pull", image)
    for digest, path in _blobs(orlopd).items():  # index or manifest, config and layer
        _edit(path)
        found = _check(orlopd, status=1)
        assert set(found) == {"damaged-blob"}
        row = found["damaged-blob"]
        assert (row["name"], row["path"]) == (digest, str(path))
        assert row["used_by"] == [f"{orlopd.namespace}/{image}"]
        damaged = path.read_bytes()
        assert _check(orlopd, "--repair", status=0)["damaged-blob"]["outcome"] == "repaired"
        assert Digest.of(path.read_bytes()) == digest
        (aside,) = orlopd.root.glob(f"content/damaged/{digest.replace(':', '-')}.*")
        assert aside.read_bytes() == damaged
    path.unlink()
    assert set(_check(orlopd, "--quick", status=1)) == {"lost-blob"}
    assert _check(orlopd, "--repair", status=0)["lost-blob"]["outcome"] == "repaired"
    orlopd.restart()
    assert orlopd.orlop("run", "--rm", image, "echo", "well").stdout == "well\n"


def test_a_blob_that_is_missing_is_fetched(orlopd: Orlopd, registry: str) -> None:
    image = f"{registry}/test/busybox:latest"
    orlopd.orlop("pull", image)
    layer = _layer(orlopd)
    orlopd.ctr("content", "rm", layer)
    row = _check(orlopd, status=1)["missing-blob"]
    assert (row["name"], row["used_by"]) == (layer, [f"{orlopd.namespace}/{image}"])
    _check(orlopd, "--repair", status=0)
    assert Digest.of(_blob(orlopd, layer).read_bytes()) == layer
    assert _check(orlopd, status=0) == {}


@pytest.mark.fresh
def test_a_pull_that_runs_or_was_broken_off(orlopd: Orlopd, tmp_path: Path) -> None:
    """What it has not brought is no damage, unless an image needs it or the pull was long ago."""
    layered_image.build(tmp_path / "layout", 1 << 20)
    with (
        run_registry(tmp_path) as host,
        closing(SlowProxy(host, rate=1e5)) as slow,
        orlopd.connect() as connection,
    ):
        skopeo_copy(f"oci:{tmp_path}/layout:latest", f"docker://{host}/test/one:1")
        with subprocess.Popen(orlopd.orlop_command("pull", f"{slow.host}/test/one:1")) as pull:
            orlopd.wait_for(lambda: slow.passed > 100_000)
            assert _check(orlopd, "--repair", status=0) == {}
            assert pull.poll() is None
            pull.send_signal(signal.SIGINT)
        assert _check(orlopd, "--repair", status=0) == {}
        # As if the last had not even begun.
        *begun, last = connection.content.list_statuses(content_pb2.ListStatusesRequest()).statuses
        assert begun
        connection.content.abort(content_pb2.AbortRequest(ref=last.ref))
        assert _check(orlopd, "--repair", status=0) == {}
        (manifest,) = [
            info
            for answer in connection.content.list(content_pb2.ListContentRequest())
            for info in answer.info
            if last.expected in info.labels.values()
        ]
        target = Descriptor(
            media_type=mediatypes.OCI_MANIFEST, digest=manifest.digest, size=manifest.size
        )
        image = images_pb2.Image(name="one:1", target=target)
        connection.images.create(images_pb2.CreateImageRequest(image=image))
        assert _missing(orlopd) == {last.expected: [f"{orlopd.namespace}/one:1"]}
        connection.images.delete(images_pb2.DeleteImageRequest(name="one:1"))
        assert _check(orlopd, status=0) == {}
        _change(orlopd, "UPDATE leases SET created_at = ?", int(_YESTERDAY) * 10**9)
        assert _missing(orlopd) == {last.expected: []}


def _missing(orlopd: Orlopd) -> dict[str, list[str]]:
    """The blobs that are, and the images that need them."""
    done = orlopd.orlop("store", "check", "--format", "json", check=False)
    rows = map(json.loads, done.stdout.splitlines())
    return {row["name"]: row["used_by"] for row in rows if row["kind"] == "missing-blob"}


@pytest.mark.fresh
def test_what_cannot_be_had_again(orlopd: Orlopd, busybox: str) -> None:
    """It came from an archive: it stays as it is, unless it is to be given up."""
    layer = _layer(orlopd)
    path = _blob(orlopd, layer)
    _edit(path)
    damaged = path.read_bytes()
    row = _check(orlopd, "--repair", status=1)["damaged-blob"]
    assert row["outcome"] == "left" and "no label says" in row["problem"]
    assert path.read_bytes() == damaged
    row = _check(orlopd, "--repair", "--drop", status=0)["damaged-blob"]
    assert row["outcome"] == "dropped" and "content/damaged/" in row["problem"]
    assert not path.exists()
    (aside,) = orlopd.root.glob("content/damaged/*")
    assert aside.read_bytes() == damaged
    assert set(_check(orlopd, status=1)) == {"missing-blob"}


def test_what_may_be_had_another_time_is_not_given_up(orlopd: Orlopd, registry: str) -> None:
    """The registry cannot be asked just now."""
    orlopd.orlop("pull", f"{registry}/test/busybox:latest")
    layer = _layer(orlopd)
    source = "containerd.io/distribution.source."
    _change(orlopd, f"UPDATE labels SET key = '{source}127.0.0.1:1' WHERE key LIKE '{source}%'")
    _edit(_blob(orlopd, layer))
    row = _check(orlopd, "--repair", "--drop", status=1)["damaged-blob"]
    assert row["outcome"] == "left" and "127.0.0.1:1" in row["problem"]
    assert _blob(orlopd, layer).exists()


def test_a_shortened_blob_is_not_made_right_unread(orlopd: Orlopd, busybox: str) -> None:
    path = _blob(orlopd, _layer(orlopd))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.truncate(1000)
    row = _check(orlopd, "--quick", "--repair", status=1)["wrong-size"]
    assert (row["outcome"], "without --quick" in row["problem"]) == ("left", True)
    assert set(_check(orlopd, status=1)) == {"damaged-blob"}


def test_litter_goes(orlopd: Orlopd, busybox: str) -> None:
    orphan = orlopd.root / "content/blobs/sha256" / Digest.of(b"x").partition(":")[2]
    orphan.write_bytes(b"x")
    ingest = orlopd.root / "content/ingest/nobody"
    ingest.mkdir()
    folders = [orlopd.root / f"snapshots/overlayfs/snapshots/{n}" for n in (100_000, 100_001)]
    for folder in folders:
        folder.mkdir()
    os.utime(folders[0], (_YESTERDAY, _YESTERDAY))  # the other may be of an unpack that runs
    orlopd.ctr("leases", "create", "--id", "old")
    for kind, name in (("content", Digest.of(b"none")), ("snapshots/overlayfs", "none")):
        _change(orlopd, "INSERT INTO lease_resources VALUES (?, 'old', ?, ?)",
                orlopd.namespace, kind, name)  # fmt: skip
    _change(orlopd, "UPDATE leases SET created_at = ?", int(_YESTERDAY) * 10**9)
    _change(orlopd, "INSERT INTO labels VALUES ('image', ?, 'none', 'a', 'b')", orlopd.namespace)
    kinds = {"orphan-blob", "orphan-ingest", "orphan-snapshot", "dangling-lease", "stray-label"}
    assert set(_check(orlopd, status=0)) == kinds
    assert orphan.exists()
    repaired = _check(orlopd, "--repair", status=0)
    assert {kind: row["outcome"] for kind, row in repaired.items()} == dict.fromkeys(
        kinds, "repaired"
    )
    assert _check(orlopd, status=0) == {}
    assert not orphan.exists() and not ingest.exists() and folders[1].exists()
    orlopd.wait_for(lambda: not folders[0].exists())
    folders[1].rmdir()


@pytest.mark.fresh
def test_records_that_are_wrong(orlopd: Orlopd, busybox: str) -> None:
    layer = _layer(orlopd)
    _change(orlopd, "UPDATE content SET size = 1 WHERE digest = ?", layer)
    assert set(_check(orlopd, status=1)) == {"wrong-size"}
    _check(orlopd, "--repair", status=0)
    orlopd.orlop("create", "--name", "one", busybox, "true")
    (base,) = [p for p in orlopd.root.glob("snapshots/overlayfs/snapshots/*")
               if any((p / "fs").iterdir())]  # fmt: skip
    (key,) = [
        line.split()[0] for line in orlopd.ctr("snapshots", "ls").stdout.splitlines()
        if line.split()[-1] == "Committed"
    ]  # fmt: skip
    with orlopd.connect() as connection:
        connection.snapshots.view(
            snapshots_pb2.ViewSnapshotRequest(
                snapshotter="overlayfs", key="look", parent=key,
                labels={"containerd.io/gc.root": "1"},
            )
        )  # fmt: skip
    base.rename(orlopd.folder / "away")
    row = _check(orlopd, status=1)["lost-snapshot"]
    assert row["used_by"] == [f"{orlopd.namespace}/one"]
    row = _check(orlopd, "--repair", "--drop", status=1)["lost-snapshot"]
    assert row["outcome"] == "left" and "containers need it" in row["problem"]
    orlopd.orlop("rm", "one")
    row = _check(orlopd, "--repair", "--drop", status=1)["lost-snapshot"]
    assert row["outcome"] == "left" and '"look", which is in use' in row["problem"]
    orlopd.ctr("snapshots", "rm", "look")
    assert _check(orlopd, "--repair", "--drop", status=0)["lost-snapshot"]["outcome"] == "dropped"
    assert orlopd.orlop("run", "--rm", busybox, "echo", "anew").stdout == "anew\n"


def test_a_layer_that_is_an_image(orlopd: Orlopd, busybox: str) -> None:
    """It is dropped where no container needs it, and made anew."""
    run = ("--snapshotter", "erofs", busybox, "box", "echo", "well")
    orlopd.ctr("run", "--rm", *run)
    (path,) = orlopd.root.glob("snapshots/erofs/snapshots/*/layer.erofs")
    assert _check(orlopd, status=0) == {}
    orlopd.ctr("containers", "create", *run[:4])
    _edit(path)
    row = _check(orlopd, status=1)["damaged-layer"]
    assert (row["path"], row["used_by"]) == (str(path), [f"{orlopd.namespace}/box"])
    row = _check(orlopd, "--repair", "--drop", status=1)["damaged-layer"]
    assert row["outcome"] == "left" and "containers need it" in row["problem"]
    orlopd.ctr("containers", "rm", "box")
    assert _check(orlopd, "--repair", "--drop", status=0)["damaged-layer"]["outcome"] == "dropped"
    assert orlopd.ctr("run", "--rm", *run).stdout == "well\n"
    assert _check(orlopd, status=0) == {}


def test_a_container_without_its_root(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("create", "--name", "one", busybox, "true")
    (key,) = [
        line.split()[0] for line in orlopd.ctr("snapshots", "ls").stdout.splitlines()
        if line.split()[-1] == "Active"
    ]  # fmt: skip
    orlopd.ctr("snapshots", "rm", key)
    row = _check(orlopd, "--repair", "--drop", status=1)["lost-root"]
    assert (row["name"], row["namespace"]) == ("one", orlopd.namespace)
    assert row["outcome"] == "left" and "make it anew" in row["problem"]
    orlopd.orlop("rm", "one")
    assert _check(orlopd, status=0) == {}


def test_what_cannot_be_deleted(orlopd: Orlopd, busybox: str) -> None:
    """It is told until it is gone, also to a client of the API that cleans up."""
    orlopd.orlop("create", "--name", "one", busybox, "true")
    folder = max(orlopd.root.glob("snapshots/overlayfs/snapshots/[0-9]*"), key=_number)
    below = folder / "fs/below"
    below.mkdir()
    trash = folder.with_name(f".trash-{folder.name}")
    mount_all([Mount("tmpfs", "tmpfs")], below)
    try:
        orlopd.orlop("rm", "one")
        orlopd.wait_for(lambda: "stuck-snapshot" in _check(orlopd, status=0))
        row = _check(orlopd, "--repair", status=0)["stuck-snapshot"]
        assert (row["path"], row["outcome"]) == (str(trash), "left")
        with orlopd.connect() as connection:
            request = snapshots_pb2.CleanupRequest(snapshotter="overlayfs")
            with pytest.raises(FailedPrecondition, match=str(trash)):
                connection.snapshots.cleanup(request)
    finally:
        unmount(trash / "fs/below")
    row = _check(orlopd, "--repair", status=0)["stuck-snapshot"]
    assert (row["outcome"], trash.exists()) == ("repaired", False)
    assert _check(orlopd, status=0) == {}


def test_what_can_be_deleted_beside_what_cannot(orlopd: Orlopd, busybox: str) -> None:
    pinned = []
    for name in ("one", "two"):
        orlopd.orlop("create", "--name", name, busybox, "true")
        folder = max(orlopd.root.glob("snapshots/overlayfs/snapshots/[0-9]*"), key=_number)
        (folder / "fs/pinned").touch()
        subprocess.run(["chattr", "+i", folder / "fs/pinned"], check=True)
        pinned.append(folder.with_name(f".trash-{folder.name}") / "fs/pinned")
    held = set(pinned)
    try:
        orlopd.orlop("rm", "one", "two")
        orlopd.wait_for(lambda: len(_outcomes(orlopd)) == 2)
        subprocess.run(["chattr", "-i", pinned[1]], check=True)
        held.remove(pinned[1])
        told = {str(pinned[0].parents[1]): "left", str(pinned[1].parents[1]): "repaired"}
        assert _outcomes(orlopd, "--repair") == told
    finally:
        for path in held:
            subprocess.run(["chattr", "-i", path], check=True)
    assert set(_outcomes(orlopd, "--repair").values()) == {"repaired"}
    assert _check(orlopd, status=0) == {}


def _outcomes(orlopd: Orlopd, *options: str) -> dict[str, str]:
    """Of what could not be deleted, by its path."""
    done = orlopd.orlop("store", "check", "--format", "json", *options, check=False)
    rows = map(json.loads, done.stdout.splitlines())
    return {row["path"]: row["outcome"] for row in rows if row["kind"] == "stuck-snapshot"}


def _number(folder: Path) -> int:
    return int(folder.name)


def test_a_check_ends_with_its_client(orlopd: Orlopd, busybox: str) -> None:
    with orlopd.connect() as connection:
        answers = connection.store.check(store_pb2.CheckRequest())
        next(answers)
        answers.close()
        orlopd.wait_for(lambda: not any(name == "orlop-check" for _, name in orlopd.processes()))
