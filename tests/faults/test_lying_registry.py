"""A registry that lies, stalls, breaks off or is not there: one clear error, nothing half-made."""

from __future__ import annotations

import gzip
import json
import tarfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd
from tests.leases_left import assert_only_brief_leases
from tests.lying_registry import INDEX, MANIFEST, Registry, digest_of, send, tar_of

pytestmark = pytest.mark.root


def _pull(orlopd: Orlopd, lying: Registry, *options: str) -> str:
    done = orlopd.orlop("pull", "-q", *options, f"{lying.host}/x/y:latest", check=False)
    assert done.returncode == (1 if done.stderr else 0), done
    assert done.stderr.count("\n") <= 1, done.stderr
    return done.stderr


def _assert_nothing_half_made(orlopd: Orlopd) -> None:
    assert orlopd.orlop("images", "-q").stdout == ""
    assert len(orlopd.ctr("snapshots", "ls").stdout.splitlines()) == 1
    assert_only_brief_leases(orlopd)
    snapshots = orlopd.root / "snapshots/overlayfs/snapshots"
    orlopd.wait_for(lambda: list(snapshots.iterdir()) == [])
    assert not [name for _, name in orlopd.processes() if "unpack" in name]


def test_a_good_image_can_be_pulled(orlopd: Orlopd, lying: Registry) -> None:
    layer = lying.image()
    assert _pull(orlopd, lying) == ""
    assert layer["digest"] in orlopd.ctr("content", "ls", "-q").stdout
    labels = orlopd.ctr("content", "ls").stdout
    assert "containerd.io/uncompressed" in labels
    assert f"containerd.io/distribution.source.{lying.host}=x/y" in labels
    assert "containerd.io/gc.ref.snapshot.overlayfs" in labels


def _other_bytes(request: BaseHTTPRequestHandler, lying: Registry, digest: str) -> bool:
    if digest not in request.path:
        return False
    data = lying.blobs[digest]
    send(request, 200, data[:50] + b"?" + data[51:])
    return True


def test_a_mirror_with_a_corrupt_layer(orlopd: Orlopd, lying: Registry, tmp_path: Path) -> None:
    """What only its digest tells of: the registry itself is well, and has the rest."""
    layer = lying.image()
    mirror = Registry()
    mirror.blobs, mirror.types, mirror.tags = lying.blobs, lying.types, lying.tags
    mirror.spoil = lambda request: _other_bytes(request, mirror, layer["digest"])
    (tmp_path / "registry.test").mkdir()
    (tmp_path / "registry.test/hosts.toml").write_text(
        f'server = "http://{lying.host}"\n[host."http://{mirror.host}"]\n'
    )
    try:
        name = "registry.test/x/y:latest"
        orlopd.orlop("pull", "-q", "--hosts-dir", str(tmp_path), name)
    finally:
        mirror.close()
    asked = [[path for _, path, _ in each.requests] for each in (mirror, lying)]
    assert len(asked[0]) == 4  # all of it
    assert len(asked[1]) == 1
    assert layer["digest"] in asked[1][0]
    assert layer["digest"] in orlopd.ctr("content", "ls", "-q").stdout


def test_corrupt_layer(orlopd: Orlopd, lying: Registry) -> None:
    layer = lying.image()
    lying.spoil = lambda request: _other_bytes(request, lying, layer["digest"])
    error = _pull(orlopd, lying)
    assert "damaged content" in error or "damaged gzip" in error
    _assert_nothing_half_made(orlopd)
    lying.spoil = lambda _: False
    assert _pull(orlopd, lying) == ""


def test_corrupt_manifest(orlopd: Orlopd, lying: Registry) -> None:
    lying.image()
    manifest = lying.tags["latest"]
    lying.spoil = lambda request: (
        request.command == "GET" and _other_bytes(request, lying, manifest)
    )
    assert "whose digest is" in _pull(orlopd, lying)
    _assert_nothing_half_made(orlopd)


def test_wrong_size(orlopd: Orlopd, lying: Registry) -> None:
    layer = lying.image()
    lying.image(layers=[{**layer, "size": layer["size"] - 7}])
    announced = f"has {layer['size']} bytes, {layer['size'] - 7} were announced"
    assert announced in _pull(orlopd, lying)
    lying.image(layers=[{**layer, "size": layer["size"] + 7}])
    assert "were announced" in _pull(orlopd, lying)
    _assert_nothing_half_made(orlopd)


def test_wrong_diff_id(orlopd: Orlopd, lying: Registry) -> None:
    lying.image(diff_id=f"sha256:{'5' * 64}")
    assert "but the image config says" in _pull(orlopd, lying)
    _assert_nothing_half_made(orlopd)


def test_unknown_media_types(orlopd: Orlopd, lying: Registry) -> None:
    lying.image(layer_type="application/x-sbom")
    assert "to unpack" in _pull(orlopd, lying)
    lying.tag(b"<html>", "text/html")
    assert "neither an image manifest nor an index" in _pull(orlopd, lying)
    _assert_nothing_half_made(orlopd)


def test_missing_platform(orlopd: Orlopd, lying: Registry) -> None:
    lying.image()
    entry = {
        **lying.put(lying.blobs[lying.tags["latest"]], MANIFEST),
        "platform": {"os": "linux", "architecture": "s390x"},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    lying.tag(json.dumps(index).encode(), INDEX)
    error = _pull(orlopd, lying)
    assert "platform linux/amd64" in error
    assert "not found" in error
    _assert_nothing_half_made(orlopd)


def test_missing_image_and_registry(orlopd: Orlopd, lying: Registry) -> None:
    assert f'image "{lying.host}/x/y:latest"' in _pull(orlopd, lying)
    done = orlopd.orlop("pull", "127.0.0.1:1/x/y", check=False)
    assert 'registry "127.0.0.1:1" does not answer' in done.stderr
    assert "0x" not in done.stderr
    done = orlopd.orlop("pull", "Not A Name", check=False)
    assert "is not a repository name" in done.stderr
    _assert_nothing_half_made(orlopd)


@pytest.mark.parametrize("name", ["../up", "a/../../up"])
def test_hostile_layers(orlopd: Orlopd, lying: Registry, name: str) -> None:
    tar = tar_of(name, b"x")
    lying.image(layer=gzip.compress(tar), diff_id=digest_of(tar))
    assert "layer entry" in _pull(orlopd, lying)
    _assert_nothing_half_made(orlopd)


def test_a_bomb(orlopd: Orlopd, lying: Registry) -> None:
    bomb = b"".join(gzip.compress(b"x" * (64 << 20)) for _ in range(1)) * 40
    header = tar_of("zeros", b"")[:512]
    info = tarfile.TarInfo("zeros")
    info.size = 8 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    lying.image(layer=gzip.compress(header) + bomb)
    assert "decompression bomb" in _pull(orlopd, lying)
    _assert_nothing_half_made(orlopd)


def test_a_broken_download_is_resumed(orlopd: Orlopd, lying: Registry) -> None:
    layer = lying.image(layer=None)
    data = lying.blobs[layer["digest"]]
    cuts = iter([20, 40])

    def cut(request: BaseHTTPRequestHandler) -> bool:
        if not request.path.endswith(layer["digest"]) or (at := next(cuts, None)) is None:
            return False
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        send(request, 206 if start else 200, data[start:], cut=at)
        return True

    lying.spoil = cut
    assert _pull(orlopd, lying) == ""
    ranges = [
        headers.get("Range")
        for _, path, headers in lying.requests
        if path.endswith(layer["digest"])
    ]
    assert ranges == [None, "bytes=20-", "bytes=60-"]


def test_too_many_requests(orlopd: Orlopd, lying: Registry) -> None:
    lying.image()
    refusals = iter([429, 503, 429])

    def refuse(request: BaseHTTPRequestHandler) -> bool:
        status = next(refusals, None)
        if status is None:
            return False
        send(request, status, b"slow down", {"Retry-After": "0"})
        return True

    lying.spoil = refuse
    assert _pull(orlopd, lying) == ""


def test_tokens(orlopd: Orlopd, lying: Registry) -> None:
    lying.image()

    def guard(request: BaseHTTPRequestHandler) -> bool:
        if request.path.startswith("/token"):
            send(request, 200, b'{"token": "pass", "expires_in": 300}')
            return True
        if request.headers.get("Authorization") == "Bearer pass":
            return False
        realm = f'Bearer realm="http://{lying.host}/token",service="s",scope="repository:x/y:pull"'
        send(request, 401, b"", {"WWW-Authenticate": realm})
        return True

    lying.spoil = guard
    assert _pull(orlopd, lying) == ""
    (token,) = [path for _, path, _ in lying.requests if path.startswith("/token")]
    assert "scope=repository%3Ax%2Fy%3Apull" in token
    assert "service=s" in token


def test_a_secret_does_not_follow_a_redirect(orlopd: Orlopd, lying: Registry) -> None:
    layer = lying.image()
    other = Registry()
    other.blobs, other.types = lying.blobs, lying.types

    def redirect(request: BaseHTTPRequestHandler) -> bool:
        if request.headers.get("Authorization") != "Bearer pass":
            if request.path.startswith("/token"):
                send(request, 200, b'{"token": "pass"}')
            else:
                challenge = f'Bearer realm="http://{lying.host}/token"'
                send(request, 401, b"", {"WWW-Authenticate": challenge})
            return True
        if request.path.endswith(layer["digest"]):
            send(request, 307, b"", {"Location": f"http://{other.host}/b/{layer['digest']}"})
            return True
        return False

    lying.spoil = redirect
    try:
        assert _pull(orlopd, lying) == ""
        assert len(other.requests) == 1
        assert "Authorization" not in other.requests[0][2]
    finally:
        other.close()


def test_a_document_that_is_here_in_another_size(orlopd: Orlopd, lying: Registry) -> None:
    """A manifest may name a huge blob that is here already as its small config."""
    layer = lying.image()
    assert _pull(orlopd, lying) == ""
    lying.image(config={**layer, "mediaType": "application/vnd.oci.image.config.v1+json",
                        "size": 100})  # fmt: skip
    assert "bytes, 100 were announced" in _pull(orlopd, lying)


def test_an_index_picks_the_best(orlopd: Orlopd, lying: Registry) -> None:
    lying.image()
    good = lying.put(lying.blobs[lying.tags["latest"]], MANIFEST)
    entries = [
        {**good, "digest": f"sha256:{'1' * 64}",
         "platform": {"os": "windows", "architecture": "amd64"}},
        {**good, "platform": {"os": "linux", "architecture": "amd64"}},
        {**good, "digest": f"sha256:{'2' * 64}",
         "platform": {"os": "unknown", "architecture": "unknown"}},
    ]  # fmt: skip
    lying.tag(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), INDEX)
    assert _pull(orlopd, lying) == ""


def test_native_snapshotter(orlopd: Orlopd, lying: Registry) -> None:
    lying.image()
    assert _pull(orlopd, lying, "--snapshotter", "native") == ""
    listed = orlopd.ctr("snapshots", "--snapshotter", "native", "ls").stdout
    assert "Committed" in listed


@pytest.mark.parametrize("everything", [False, True])
def test_indexes_that_name_one_another_many_times_are_walked_once(
    orlopd: Orlopd, lying: Registry, everything: bool
) -> None:
    """An image of another system, found in ever so many ways."""
    lying.image()
    manifest = json.loads(lying.blobs[lying.tags["latest"]])
    config = json.loads(lying.blobs[manifest["config"]["digest"]])
    packed = json.dumps({**config, "os": "plan9"}).encode()
    manifest["config"] = lying.put(packed, "application/vnd.oci.image.config.v1+json")
    target = lying.put(json.dumps(manifest).encode(), MANIFEST)
    for _ in range(4):
        crowd = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [target] * 1000}
        target = lying.put(json.dumps(crowd).encode(), INDEX)
    lying.tags["latest"] = target["digest"]
    options = ("--all-platforms",) if everything else ()
    error = _pull(orlopd, lying, *options)
    assert ("platform" in error) != everything, error
