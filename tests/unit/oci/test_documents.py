from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.errors import InvalidArgument
from orlop.oci import manifest, mediatypes, platform, reference
from orlop.oci.chain import chain_ids
from orlop.oci.descriptor import Platform
from orlop.oci.digest import Digest
from orlop.oci.manifest import Index, Manifest

D = f"sha256:{'0' * 64}"
BLOB = {"mediaType": "x/y", "digest": D, "size": 1}
CONFIG = {**BLOB, "mediaType": mediatypes.OCI_CONFIG}


@pytest.mark.parametrize(
    "bad", ["", "sha256", "sha256:", f"md5:{'0' * 32}", f"sha256:{'0' * 63}", f"sha256:{'G' * 64}",
            f"sha256:{'A' * 64}", f"sha256:{'0' * 64}\n"]
)  # fmt: skip
def test_bad_digests(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="digest"):
        Digest.parse(bad)


def test_digest() -> None:
    digest = Digest.of(b"")
    assert digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (digest.algorithm, len(digest.hex)) == ("sha256", 64)
    assert Digest.of(b"x", "sha512").algorithm == "sha512"


def test_chain() -> None:
    a, b = Digest.of(b"a"), Digest.of(b"b")
    assert chain_ids([]) == []
    assert chain_ids([a]) == [a]
    assert chain_ids([a, b]) == [a, Digest.of(f"{a} {b}".encode())]


def _parse(document: dict[str, Any], media_type: str = mediatypes.OCI_MANIFEST) -> Manifest | Index:
    return manifest.parse(json.dumps(document).encode(), media_type)


def test_manifest_and_index() -> None:
    found = _parse({"schemaVersion": 2, "config": BLOB, "layers": [BLOB], "unknown": {}})
    assert isinstance(found, Manifest)
    assert found.layers[0].digest == D
    entry = {**BLOB, "platform": {"os": "linux", "architecture": "arm", "os.version": "9"}}
    index = _parse({"manifests": [entry]}, mediatypes.DOCKER_INDEX)
    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform("arm", "linux", os_version="9")


@pytest.mark.parametrize(
    ("document", "media_type", "complaint"),
    [
        ({"config": BLOB, "layers": [], "manifests": []}, mediatypes.OCI_MANIFEST, "at once"),
        ({"config": BLOB, "manifests": []}, mediatypes.OCI_INDEX, "at once"),
        ({"manifests": []}, mediatypes.OCI_MANIFEST, "is an index"),
        ({"config": BLOB, "layers": []}, mediatypes.OCI_INDEX, "no manifests"),
        ({"mediaType": mediatypes.OCI_INDEX, "manifests": []}, mediatypes.DOCKER_INDEX, "says"),
        ({"config": BLOB, "layers": []}, "text/html", "neither"),
        ({"config": {**BLOB, "digest": "x"}, "layers": []}, mediatypes.OCI_MANIFEST, "digest"),
        ({"config": {**BLOB, "size": -1}, "layers": []}, mediatypes.OCI_MANIFEST, "size -1"),
        ({"config": 5, "layers": []}, mediatypes.OCI_MANIFEST, "does not parse"),
        ([], mediatypes.OCI_MANIFEST, "does not parse"),
        ({"config": CONFIG, "layers": [BLOB] * 1001}, mediatypes.OCI_MANIFEST, "has 1001 layers"),
    ],
)
def test_bad_documents(document: Any, media_type: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        _parse(document, media_type)


def test_an_artifact_may_have_many_layers() -> None:
    found = _parse({"config": BLOB, "layers": [BLOB] * 1001}, mediatypes.OCI_MANIFEST)
    assert isinstance(found, Manifest)
    assert len(found.layers) == 1001


@given(st.binary(max_size=200))
def test_garbage_documents(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        manifest.parse(data, mediatypes.OCI_MANIFEST)


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b/c:t", "localhost:5000/a/b/c:t"),
        ("ghcr.io/x/y", "ghcr.io/x/y:latest"),
        (f"busybox@{D}", f"docker.io/library/busybox@{D}"),
        (f"a.b/c:t@{D}", f"a.b/c:t@{D}"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
    ],
)
def test_references(typed: str, full: str) -> None:
    found = reference.normalize(typed)
    assert str(found) == full
    assert reference.parse(full) == found


@pytest.mark.parametrize(
    "bad", ["", "/", "docker.io/", "UPPER", "a b", "x:", "x@", "x:ta/g", "x@sha256:12", "a//b",
            "docker.io/x:" + "t" * 129, "-x", "x" * 256, "host.io:x/y", "localhost:99999/a"]
)  # fmt: skip
def test_bad_references(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        reference.normalize(bad)


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        found = reference.normalize(text)
    except InvalidArgument:
        return
    assert reference.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("linux/amd64", Platform("amd64", "linux")),
        ("linux/x86_64", Platform("amd64", "linux")),
        ("linux/arm", Platform("arm", "linux", "v7")),
        ("linux/arm64/v8", Platform("arm64", "linux")),
        ("linux/armel", Platform("arm", "linux", "v6")),
        ("macos/aarch64", Platform("arm64", "darwin")),
    ],
)
def test_platforms(text: str, found: Platform) -> None:
    assert platform.parse(text) == found


@pytest.mark.parametrize("bad", ["", "/", "a/b/c/d", "linux/", "li nux/amd64"])
def test_bad_platforms(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        platform.parse(bad)


def test_the_best_platform_wins() -> None:
    def offer(*texts: str) -> list[tuple[Platform | None, str]]:
        return [(platform.parse(text), text) for text in texts]

    arm7 = Platform("arm", "linux", "v7")
    assert platform.best(arm7, offer("linux/arm/v5", "linux/arm/v6", "linux/arm/v8")) == (
        "linux/arm/v6"
    )
    amd3 = Platform("amd64", "linux", "v3")
    choice = offer("linux/386", "linux/amd64/v4", "linux/amd64", "linux/amd64/v2")
    assert platform.best(amd3, choice) == "linux/amd64/v2"
    assert platform.best(amd3, offer("windows/amd64", "linux/arm64")) is None
    arm64 = Platform("arm64", "linux")
    assert platform.best(arm64, offer("linux/arm/v7", "linux/arm64")) == "linux/arm64"
    assert platform.best(arm64, [(None, "any"), *offer("linux/arm64")]) == "linux/arm64"


def test_layer_types() -> None:
    assert mediatypes.is_layer(mediatypes.OCI_LAYER + "+zstd")
    assert mediatypes.is_layer(mediatypes.DOCKER_LAYER + ".gzip")
    assert not mediatypes.is_layer("application/vnd.example.sbom")
