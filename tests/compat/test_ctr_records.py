"""Debian's ctr against orlopd: everything that needs no running container."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from orlop.client import leases
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def test_version(orlopd: Orlopd) -> None:
    shown = orlopd.ctr("version").stdout
    assert "Client:" in shown
    assert "Server:" in shown
    assert "UUID:" in shown


def test_plugins_ls(orlopd: Orlopd) -> None:
    shown = orlopd.ctr("plugins", "ls").stdout
    assert "io.containerd.snapshotter.v1" in shown
    assert "overlayfs" in shown
    assert "ok" in shown
    detail = orlopd.ctr("plugins", "ls", "-d", "id==overlayfs").stdout
    assert "Exports:" in detail


def test_namespaces(orlopd: Orlopd) -> None:
    orlopd.ctr("namespaces", "create", "crew", "rank=able")
    assert "crew" in orlopd.ctr("namespaces", "ls").stdout
    assert "rank=able" in orlopd.ctr("namespaces", "ls").stdout
    orlopd.ctr("namespaces", "label", "crew", "rank=", "watch=dog")
    shown = orlopd.ctr("namespaces", "ls").stdout
    assert "rank=able" not in shown
    assert "watch=dog" in shown
    again = orlopd.ctr("namespaces", "create", "crew", check=False)
    assert again.returncode != 0
    assert "already exists" in again.stderr
    orlopd.ctr("namespaces", "rm", "crew")
    assert "crew" not in orlopd.ctr("namespaces", "ls").stdout


def test_a_namespace_with_content_is_not_removed(orlopd: Orlopd, tmp_path: Path) -> None:
    digest = _ingest(orlopd, tmp_path, b"ballast", namespace="hold")
    refused = orlopd.ctr("namespaces", "rm", "hold", check=False)
    assert refused.returncode != 0
    assert "content" in refused.stderr or "blobs" in refused.stderr
    orlopd.ctr("content", "rm", digest, namespace="hold")
    orlopd.ctr("namespaces", "rm", "hold")


def _ingest(orlopd: Orlopd, tmp_path: Path, data: bytes, namespace: str = "") -> str:
    source = tmp_path / "blob"
    source.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    facts = ("--expected-digest", digest, "--expected-size", str(len(data)))
    with source.open("rb") as stdin:
        orlopd.ctr(
            "content", "ingest", *facts, f"ref-{digest[7:]}", stdin=stdin, namespace=namespace
        )
    return digest


def test_content(orlopd: Orlopd, tmp_path: Path) -> None:
    data = b"cargo" * 700_000
    digest = _ingest(orlopd, tmp_path, data)
    assert digest in orlopd.ctr("content", "ls").stdout
    assert orlopd.ctr_bytes("content", "get", digest) == data
    orlopd.ctr("content", "label", digest, "port=lisbon")
    assert "port=lisbon" in orlopd.ctr("content", "ls").stdout
    assert orlopd.ctr("content", "active").stdout.count("\n") == 1
    orlopd.ctr("content", "rm", digest)
    assert digest not in orlopd.ctr("content", "ls").stdout
    gone = orlopd.ctr("content", "get", digest, check=False)
    assert gone.returncode != 0
    assert "not found" in gone.stderr


def test_content_with_the_wrong_digest_is_refused(orlopd: Orlopd, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"not what it says")
    wrong = f"sha256:{'0' * 64}"
    with source.open("rb") as stdin:
        refused = orlopd.ctr(
            "content", "ingest", "--expected-digest", wrong, "wrong", stdin=stdin, check=False
        )
    assert refused.returncode != 0
    assert "failed precondition" in refused.stderr
    assert wrong not in orlopd.ctr("content", "ls").stdout


def test_leases(orlopd: Orlopd) -> None:
    lease = orlopd.ctr("leases", "create", "--id", "voyage", "crew=12").stdout.strip()
    assert lease == "voyage"
    shown = orlopd.ctr("leases", "ls").stdout
    assert "voyage" in shown
    assert "crew=12" in shown
    orlopd.ctr("leases", "rm", "voyage")
    assert "voyage" not in orlopd.ctr("leases", "ls").stdout


def test_image_archive_round_trip(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    orlopd.ctr("images", "export", str(archive), busybox)
    orlopd.ctr("images", "import", str(archive), namespace="other")
    assert busybox in orlopd.ctr("images", "ls", namespace="other").stdout
    check = orlopd.ctr("images", "check", namespace="other").stdout
    assert " complete (" in check


def test_images_tag_label_rm(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("images", "tag", busybox, "port.example/busybox:tagged")
    orlopd.ctr("images", "label", "port.example/busybox:tagged", "fresh=yes")
    assert "fresh=yes" in orlopd.ctr("images", "ls").stdout
    orlopd.ctr("images", "rm", "port.example/busybox:tagged")
    assert "port.example" not in orlopd.ctr("images", "ls").stdout


def test_images_mount_and_unmount(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    orlopd.ctr("images", "mount", busybox, str(target))
    try:
        assert (target / "bin/busybox").exists()
    finally:
        orlopd.ctr("images", "unmount", "--rm", str(target))
    assert not any(target.iterdir())


def test_snapshots(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    parent = _chain_id(orlopd)
    snapshots = ("snapshots", "--snapshotter", "overlayfs")
    orlopd.ctr(*snapshots, "prepare", "work", parent)
    shown = orlopd.ctr(*snapshots, "info", "work").stdout
    assert json.loads(shown)["Parent"] == parent
    script = orlopd.ctr(*snapshots, "mounts", str(tmp_path), "work").stdout
    assert script.startswith("mount -t overlay")
    subprocess.run(["sh", "-c", script], check=True)
    try:
        (tmp_path / "new-file").write_text("x" * 5000)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    usage = orlopd.ctr(*snapshots, "usage", "-b", "work").stdout
    assert "work" in usage
    orlopd.ctr(*snapshots, "commit", "work-committed", "work")
    assert "work-committed" in orlopd.ctr(*snapshots, "tree").stdout
    with orlopd.connect() as connection:
        leases.collect(connection)  # ctr labels no view, and a collection would take it
    orlopd.ctr(*snapshots, "view", "look", "work-committed")
    refused = orlopd.ctr(*snapshots, "rm", "work-committed", check=False)
    assert "cannot remove snapshot with child" in refused.stderr
    orlopd.ctr(*snapshots, "rm", "look")
    orlopd.ctr(*snapshots, "rm", "work-committed")
    listed = orlopd.ctr(*snapshots, "ls").stdout
    assert "work" not in listed
    assert parent in listed


def _chain_id(orlopd: Orlopd) -> str:
    for line in orlopd.ctr("snapshots", "ls").stdout.splitlines()[1:]:
        name, *_, kind = line.split()
        if kind == "Committed":
            return name
    raise AssertionError("no committed snapshot")


def test_containers(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("containers", "create", busybox, "stowaway", "sleep", "7")
    assert "stowaway" in orlopd.ctr("containers", "ls").stdout
    info = json.loads(orlopd.ctr("containers", "info", "stowaway").stdout)
    assert info["ID"] == "stowaway"
    assert info["Spec"]["process"]["args"] == ["sleep", "7"]
    orlopd.ctr("containers", "label", "stowaway", "found=yes")
    info = json.loads(orlopd.ctr("containers", "info", "stowaway").stdout)
    assert info["Labels"]["found"] == "yes"
    orlopd.ctr("containers", "rm", "stowaway")
    assert "stowaway" not in orlopd.ctr("containers", "ls").stdout
    assert "stowaway" not in orlopd.ctr("snapshots", "ls").stdout


def test_missing_namespace_is_refused(orlopd: Orlopd) -> None:
    refused = orlopd.ctr("containers", "ls", namespace="not/valid", check=False)
    assert refused.returncode != 0
