from __future__ import annotations

import json

import pytest

from tests.archive_fixture import INDEX, MANIFEST, Files, add, digest_of, image, index, path_of
from tests.origin_fixture import Node

BUSYBOX = "docker.io/library/busybox"


@pytest.fixture
def files(node: Node) -> Files:
    """An image in the node; its manifest is `manifest_of(files)`."""
    made: Files = {}
    target = image(made)
    node.store(made)
    node.image(f"{BUSYBOX}:latest", target)
    return made


def manifest_of(files: Files) -> str:
    return next(digest_of(data) for data in files.values() if b'"config"' in data)


def layer_of(files: Files) -> bytes:
    return next(data for data in files.values() if data[:2] == b"\x1f\x8b")


def test_the_base_says_that_it_is_a_registry(node: Node) -> None:
    answer = node.ask("GET", "/v2/")
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_a_manifest_by_tag_and_digest(node: Node, files: Files) -> None:
    digest = manifest_of(files)
    for what in ("latest", digest, digest.replace(":", "%3A")):
        answer = node.ask("GET", f"/v2/library/busybox/manifests/{what}?ns=docker.io")
        assert answer.status == 200
        assert answer.body == files[path_of(digest)]
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Content-Type"] == MANIFEST
    head = node.ask("HEAD", "/v2/library/busybox/manifests/latest")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(files[path_of(digest)])


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        (f"{INDEX}, {MANIFEST};q=0.5", 200),
        ("application/vnd.docker.distribution.manifest.v2+json", 404),
    ],
)
def test_a_client_gets_only_what_it_accepts(
    node: Node, files: Files, accept: str, status: int
) -> None:
    answer = node.ask("GET", "/v2/library/busybox/manifests/latest", headers={"Accept": accept})
    assert answer.status == status


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/library/busybox/manifests/none", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/library/busybox/manifests/sha256:{'0' * 64}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/busybox/manifests/sha256:12", 400, "DIGEST_INVALID"),
        ("/v2/library/busybox/manifests/..", 400, "TAG_INVALID"),
        (f"/v2/library/busybox/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("/v2/library/busybox/blobs/md5:12", 400, "DIGEST_INVALID"),
        ("/v2/library/busybox/blobs/%2e%2e%2fmetadata.db", 404, "UNSUPPORTED"),
        ("/v2/library/%2e%2e/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/Library/busybox/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/none/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/library/busybox/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/library/busybox/manifests/latest?ns=quay.io", 404, "MANIFEST_UNKNOWN"),
        ("/etc/passwd", 404, "UNSUPPORTED"),
        (f"/v2/{'a/' * 600}tags/list", 414, "NAME_INVALID"),
    ],
)
def test_what_is_not_there_is_refused_in_the_words_of_the_spec(
    node: Node, files: Files, path: str, status: int, code: str
) -> None:
    answer = node.ask("GET", path)
    assert (answer.status, answer.code) == (status, code)


def test_nothing_is_changed_without_leave(node: Node, files: Files) -> None:
    for method, path in (
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/latest"),
        ("DELETE", "manifests/latest"),
        ("DELETE", f"blobs/{manifest_of(files)}"),
    ):
        answer = node.ask(method, f"/v2/library/busybox/{path}")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")


def test_ranges_of_a_blob(node: Node, files: Files) -> None:
    data = layer_of(files)
    path = f"/v2/library/busybox/blobs/{digest_of(data)}"
    size = len(data)
    for asked, expected in (
        ("bytes=0-9", data[:10]),
        ("bytes=10-", data[10:]),
        ("bytes=-7", data[-7:]),
        (f"bytes=5-{size * 9}", data[5:]),
        (f"bytes=-{size * 9}", data),
    ):
        answer = node.ask("GET", path, headers={"Range": asked})
        assert (answer.status, answer.body) == (206, expected)
        start = data.index(expected)
        end = start + len(expected) - 1
        assert answer.headers["Content-Range"] == f"bytes {start}-{end}/{size}"
    for asked in ("bytes=9-3", "lines=1-2", "bytes=0-1,4-5"):
        answer = node.ask("GET", path, headers={"Range": asked})
        assert (answer.status, answer.body) == (200, data)
    for asked in (f"bytes={size}-", "bytes=-0"):
        answer = node.ask("GET", path, headers={"Range": asked})
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{size}"
    head = node.ask("HEAD", path, headers={"Range": "bytes=0-9"})
    assert (head.status, head.headers["Content-Length"]) == (200, str(size))
    assert "Content-Range" not in head.headers


def test_what_is_known_is_not_sent_again(node: Node, files: Files) -> None:
    data = layer_of(files)
    path = f"/v2/library/busybox/blobs/{digest_of(data)}"
    etag = node.ask("HEAD", path).headers["ETag"]
    assert node.ask("GET", path, headers={"If-None-Match": etag}).status == 304
    part = {"Range": "bytes=1-2"}
    assert node.ask("GET", path, headers={**part, "If-Range": etag}).status == 206
    assert node.ask("GET", path, headers={**part, "If-Range": '"other"'}).status == 200


def test_a_digest_alone_opens_nothing(node: Node, files: Files) -> None:
    """Content of another image, of another namespace, or of none is not there."""
    private: Files = {}
    target = image(private, text="private")
    stray = b"nobody refers to this"
    node.store({**private, "stray": stray})
    node.image("quay.io/secret/app:1", target)
    for data in (layer_of(private), stray):
        answer = node.ask("GET", f"/v2/library/busybox/blobs/{digest_of(data)}")
        assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    manifest = node.ask("GET", f"/v2/library/busybox/manifests/{target['digest']}")
    assert manifest.status == 404
    assert node.ask("GET", f"/v2/secret/app/blobs/{digest_of(layer_of(private))}").status == 200


def test_an_index_of_which_one_platform_is_here(node: Node) -> None:
    files: Files = {}
    here, absent = image(files), image({}, "arm64")
    whole = index(files, here, absent)
    node.store(files)
    node.image("docker.io/library/many:1", whole)
    base = "/v2/library/many/manifests"
    assert node.ask("GET", f"{base}/1").headers["Content-Type"] == INDEX
    assert node.ask("GET", f"{base}/{here['digest']}").status == 200
    assert node.ask("GET", f"{base}/{absent['digest']}").code == "MANIFEST_UNKNOWN"
    # It comes later: what was missing is not taken for missing for ever.
    rest: Files = {}
    image(rest, "arm64")
    node.store(rest)
    assert node.ask("GET", f"{base}/{absent['digest']}").status == 200
    layer = digest_of(layer_of(rest))
    assert node.ask("GET", f"/v2/library/many/blobs/{layer}").status == 200


def test_a_path_of_two_hosts_needs_its_host(node: Node, files: Files) -> None:
    other: Files = {}
    target = image(other, text="other")
    node.store(other)
    node.image("quay.io/library/busybox:latest", target)
    path = "/v2/library/busybox/manifests/latest"
    assert node.ask("GET", path).code == "NAME_UNKNOWN"
    assert node.ask("GET", f"{path}?ns=docker.io").headers["Docker-Content-Digest"] == manifest_of(
        files
    )
    for answer in (
        node.ask("GET", f"{path}?ns=quay.io"),
        node.ask("GET", "/v2/quay.io/library/busybox/manifests/latest"),
    ):
        assert answer.headers["Docker-Content-Digest"] == target["digest"]
    names = node.ask("GET", "/v2/_catalog").json()["repositories"]
    assert names == ["docker.io/library/busybox", "quay.io/library/busybox"]


def test_lists_come_in_pages(node: Node, files: Files) -> None:
    target = {"mediaType": MANIFEST, "digest": manifest_of(files), "size": 1}
    for tag in ("a", "b", "c", "d"):
        node.image(f"{BUSYBOX}:{tag}", target)
    seen, path = [], "/v2/library/busybox/tags/list?n=2&ns=docker.io"
    while path:
        answer = node.ask("GET", path)
        seen.append(answer.json()["tags"])
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert seen == [["a", "b"], ["c", "d"], ["latest"]]
    node.image("docker.io/library/alpine:1", target)
    first = node.ask("GET", "/v2/_catalog?n=1")
    assert first.json() == {"repositories": ["library/alpine"]}
    assert "last=library%2Falpine" in first.headers["Link"]


def test_images_that_are_no_references_are_left_out(node: Node, files: Files) -> None:
    target = {"mediaType": MANIFEST, "digest": manifest_of(files), "size": 1}
    node.image(manifest_of(files), target)  # as Kubernetes names its images
    node.image("import-2024-01-01/x y", target)
    assert node.ask("GET", "/v2/_catalog").json() == {"repositories": ["library/busybox"]}


def test_referrers(node: Node, files: Files) -> None:
    subject = manifest_of(files)
    more: Files = {}
    config = add(more, b"{}", "application/vnd.oci.empty.v1+json")
    found = {}
    for kind in ("sbom/x", "signature/x"):
        document = {
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": config,
            "layers": [], "annotations": {"kind": kind},
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
        }  # fmt: skip
        found[kind] = add(more, json.dumps(document).encode(), MANIFEST)
        node.image(f"{BUSYBOX}@{found[kind]['digest']}", found[kind])
    node.store(more)
    path = f"/v2/library/busybox/referrers/{subject}"
    answer = node.ask("GET", path)
    assert answer.headers["Content-Type"] == INDEX
    listed = answer.json()["manifests"]
    assert {each["artifactType"]: each["digest"] for each in listed} == {
        kind: each["digest"] for kind, each in found.items()
    }
    assert all(each["annotations"] == {"kind": each["artifactType"]} for each in listed)
    filtered = node.ask("GET", f"{path}?artifactType=sbom%2Fx")
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert [each["digest"] for each in filtered.json()["manifests"]] == [found["sbom/x"]["digest"]]
    none = node.ask("GET", f"/v2/library/busybox/referrers/sha256:{'0' * 64}")
    assert (none.status, none.json()["manifests"]) == (200, [])
