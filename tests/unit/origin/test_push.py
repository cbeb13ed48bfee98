from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orlop.origin import warm
from tests.archive_fixture import INDEX, LAYER, MANIFEST, digest_of
from tests.daemon_fixture import Orlopd
from tests.origin_fixture import NAME, NAMESPACE, Node, Starting

APP = "team/app"


def manifest(config: dict[str, Any], *layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **more}


def begin(node: Node) -> str:
    """Open an upload; its location."""
    answer = node.ask("POST", f"/v2/{APP}/blobs/uploads/")
    assert answer.status == 202
    return str(answer.headers["Location"])


def labels_of(node: Node, digest: str) -> dict[str, str]:
    return dict(node.content.info(NAMESPACE, digest).labels)


def test_an_image_is_pushed_and_kept(pushable: Node) -> None:
    config = pushable.push_blob(APP, b"{}")
    layer = {**pushable.push_blob(APP, b"layer"), "mediaType": LAYER}
    answer = pushable.put(APP, "v1", manifest(config, layer))
    assert answer.status == 201
    digest = str(answer.headers["Docker-Content-Digest"])
    assert answer.headers["Location"] == f"/v2/{APP}/manifests/{digest}"
    assert pushable.images.get(NAMESPACE, f"{NAME}/{APP}:v1").target.digest == digest
    labels = labels_of(pushable, digest)
    assert labels["containerd.io/gc.ref.content.config"] == config["digest"]
    assert labels["containerd.io/gc.ref.content.l.0"] == layer["digest"]
    assert pushable.ask("GET", f"/v2/{APP}/tags/list").json()["tags"] == ["v1"]


def test_a_blob_in_pieces(pushable: Node) -> None:
    data = bytes(range(256)) * 100
    place = begin(pushable)
    first = pushable.ask("PATCH", place, data[:1000], {"Content-Range": "0-999"})
    assert (first.status, first.headers["Range"]) == (202, "0-999")
    gap = pushable.ask("PATCH", place, data[2000:3000], {"Content-Range": "2000-2999"})
    assert (gap.status, gap.headers["Range"]) == (416, "0-999")
    again = pushable.ask("PATCH", place, data[:1000], {"Content-Range": "0-999"})
    assert again.status == 416
    wrong = pushable.ask("PATCH", place, data[1000:2000], {"Content-Range": "1000-1001"})
    assert (wrong.status, wrong.code) == (400, "SIZE_INVALID")
    assert pushable.ask("GET", place).headers["Range"] == "0-999"
    assert pushable.ask("PATCH", place, iter([data[1000:1500], data[1500:2000]])).status == 202
    digest = digest_of(data)
    assert pushable.ask("PUT", f"{place}?digest={digest}", data[2000:]).status == 201
    blob = pushable.ask("GET", f"/v2/{APP}/blobs/{digest}")
    assert blob.body == data
    assert pushable.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"


def test_an_empty_blob(pushable: Node) -> None:
    digest = pushable.push_blob(APP, b"")["digest"]
    answer = pushable.ask("GET", f"/v2/{APP}/blobs/{digest}")
    assert (answer.status, answer.headers["Content-Length"]) == (200, "0")


def test_a_blob_by_sha512(pushable: Node) -> None:
    import hashlib

    digest = f"sha512:{hashlib.sha512(b'long').hexdigest()}"
    path = f"/v2/{APP}/blobs/uploads/?digest={digest}"
    assert pushable.ask("POST", path, b"long").status == 201
    assert pushable.ask("GET", f"/v2/{APP}/blobs/{digest}").body == b"long"


def test_an_upload_outlives_its_daemon(pushable: Node) -> None:
    place = begin(pushable)
    pushable.ask("PATCH", place, b"one ")
    pushable.close()
    pushable.start()
    status = pushable.ask("GET", place)
    assert (status.status, status.headers["Range"]) == (204, "0-3")
    digest = digest_of(b"one two")
    assert pushable.ask("PUT", f"{place}?digest={digest}", b"two").status == 201


def _open_files(node: Node) -> set[str]:
    """What of the node's writes in progress this process has open."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(str(fd.readlink()))
    return {each for each in found if str(node.content.files.root) in each and "ingest" in each}


def test_an_upload_is_kept_open_for_a_while(
    pushable: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "KEPT", 0.2)
    place = begin(pushable)
    pushable.ask("PATCH", place, b"one ")
    Orlopd.wait_for(lambda: not _open_files(pushable) and not pushable.content.open_writes())
    digest = digest_of(b"one two")
    assert pushable.ask("PUT", f"{place}?digest={digest}", b"two").status == 201


def test_an_upload_that_was_given_up_keeps_nothing(pushable: Node) -> None:
    place = begin(pushable)
    pushable.ask("PATCH", place, bytes(1000))
    assert _open_files(pushable)
    ((_, write),) = pushable.content.open_writes()
    pushable.content.abort(NAMESPACE, write.ref)
    assert pushable.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"
    assert not _open_files(pushable)


def test_an_upload_is_cancelled(pushable: Node) -> None:
    place = begin(pushable)
    pushable.ask("PATCH", place, b"data")
    assert pushable.ask("DELETE", place).status == 204
    assert pushable.ask("PATCH", place, b"more").code == "BLOB_UPLOAD_UNKNOWN"
    assert pushable.content.statuses(NAMESPACE) == []


def test_an_upload_belongs_to_its_repository(pushable: Node) -> None:
    place = begin(pushable).replace(APP, "other/app")
    assert pushable.ask("PATCH", place, b"x").code == "BLOB_UPLOAD_UNKNOWN"


def test_a_wrong_digest_leaves_nothing(pushable: Node) -> None:
    answer = pushable.ask("POST", f"/v2/{APP}/blobs/uploads/?digest={digest_of(b'a')}", b"b")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert pushable.content.list(NAMESPACE) == []
    assert pushable.content.statuses(NAMESPACE) == []


def test_a_blob_has_a_largest_size(starting: Starting) -> None:
    node = starting(push=True, blob_max=1000)
    place = begin(node)
    for body in (bytes(1001), iter([bytes(600), bytes(600)])):
        answer = node.ask("PATCH", place, body)
        assert (answer.status, answer.code) == (413, "SIZE_INVALID")


def test_two_push_one_blob(pushable: Node) -> None:
    data = b"shared" * 1000
    digest = digest_of(data)
    places = [begin(pushable), begin(pushable)]
    statuses: list[int] = []

    def push(place: str) -> None:
        pushable.ask("PATCH", place, data)
        statuses.append(pushable.ask("PUT", f"{place}?digest={digest}").status)

    threads = [threading.Thread(target=push, args=(place,)) for place in places]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert statuses == [201, 201]


def test_one_upload_is_written_by_one_request(pushable: Node) -> None:
    place = begin(pushable)
    going, done = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"first"
        going.set()
        done.wait(60)
        yield b"last"

    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(pushable.ask("PATCH", place, slowly()).status)
    )
    thread.start()
    going.wait(10)
    try:
        while pushable.ask("GET", place).headers["Range"] != "0-4":
            pass
        second = pushable.ask("PATCH", place, b"x")
        assert (second.status, second.code) == (409, "BLOB_UPLOAD_INVALID")
    finally:
        done.set()
        thread.join()
    assert answers == [202]
    assert pushable.ask("GET", place).headers["Range"] == "0-8"


def test_a_blob_is_mounted_from_another_repository(pushable: Node) -> None:
    config = pushable.push_blob("base/image", b"{}")
    digest = config["digest"]
    path = f"/v2/{APP}/blobs/uploads/?mount={digest}"
    assert pushable.ask("GET", f"/v2/{APP}/blobs/{digest}").status == 404
    assert pushable.ask("POST", f"{path}&from=none").status == 202
    assert pushable.ask("POST", f"{path}&from=base/image").status == 201
    assert pushable.ask("GET", f"/v2/{APP}/blobs/{digest}").body == b"{}"


def test_a_manifest_needs_what_it_refers_to(pushable: Node) -> None:
    """Also content that the node has but the repository has not: a digest alone opens nothing."""
    config = pushable.push_blob(APP, b"{}")
    pushable.store({"x": b"secret"})
    layer = {"mediaType": LAYER, "digest": digest_of(b"secret"), "size": 6}
    answer = pushable.put(APP, "v1", manifest(config, layer))
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert pushable.images.list(NAMESPACE) == []


@pytest.mark.parametrize(
    ("document", "kind", "status", "code"),
    [
        (b"{}", MANIFEST, 400, "MANIFEST_INVALID"),
        (b"\xff\xfe", MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[" * 100_000, MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"manifests":[],"layers":[]}', INDEX, 400, "MANIFEST_INVALID"),
        (b'{"manifests":[]}', "text/html", 400, "MANIFEST_INVALID"),
        (b" " * ((4 << 20) + 1), MANIFEST, 413, "SIZE_INVALID"),
    ],
)
def test_bad_manifests(pushable: Node, document: bytes, kind: str, status: int, code: str) -> None:
    answer = pushable.put(APP, "v1", document, kind)
    assert (answer.status, answer.code) == (status, code)


def test_a_manifest_that_lies_about_a_size_or_its_digest(pushable: Node) -> None:
    config = pushable.push_blob(APP, b"{}")
    lies = manifest({**config, "size": 3})
    assert pushable.put(APP, "v1", lies).code == "MANIFEST_INVALID"
    other = digest_of(b"other")
    assert pushable.put(APP, other, manifest(config)).code == "DIGEST_INVALID"


def test_an_index_of_thousands_of_entries(pushable: Node) -> None:
    config = pushable.push_blob(APP, b"{}")
    digest = str(pushable.put(APP, "v1", manifest(config)).headers["Docker-Content-Digest"])
    size = pushable.content.info(NAMESPACE, digest).size
    entry = {"mediaType": MANIFEST, "digest": digest, "size": size}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] * 20_000}
    assert pushable.put(APP, "many", index, INDEX).status == 201
    assert pushable.ask("GET", f"/v2/{APP}/blobs/{config['digest']}").status == 200


def test_a_child_waits_for_its_index(pushable: Node) -> None:
    config = pushable.push_blob(APP, b"{}")
    child = json.dumps(manifest(config)).encode()
    digest = digest_of(child)
    assert pushable.put(APP, digest, child).status == 201
    assert pushable.images.list(NAMESPACE) == []
    lease = pushable.leases.list(NAMESPACE)[0]
    assert "containerd.io/gc.expire" in lease.labels
    held = {each.id for each in pushable.leases.resources(NAMESPACE, lease.id)}
    assert {digest, config["digest"]} <= held
    shown = pushable.ask("GET", f"/v2/{APP}/manifests/{digest}")
    assert (shown.status, shown.headers["Content-Type"]) == (200, MANIFEST)

    pushable.close()
    pushable.start()
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(child)}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    assert pushable.put(APP, "v1", index, INDEX).status == 201
    assert pushable.images.get(NAMESPACE, f"{NAME}/{APP}:v1").target.media_type == INDEX


def test_an_artifact_is_kept_by_its_subject(pushable: Node) -> None:
    config = pushable.push_blob(APP, b"{}")
    subject = {"mediaType": MANIFEST, "digest": digest_of(b"subject"), "size": 7}
    data = json.dumps(manifest(config, subject=subject, artifactType="sbom/x")).encode()
    digest = digest_of(data)
    answer = pushable.put(APP, digest, data)
    assert answer.headers["OCI-Subject"] == subject["digest"]
    assert pushable.images.get(NAMESPACE, f"{NAME}/{APP}@{digest}")
    listed = pushable.ask("GET", f"/v2/{APP}/referrers/{subject['digest']}").json()["manifests"]
    assert [(each["digest"], each["artifactType"]) for each in listed] == [(digest, "sbom/x")]


def test_deletion_by_tag_and_by_digest(pushable: Node) -> None:
    config = pushable.push_blob(APP, b"{}")
    digest = ""
    for tag in ("v1", "v2", "v3"):
        digest = str(pushable.put(APP, tag, manifest(config)).headers["Docker-Content-Digest"])
    assert pushable.ask("DELETE", f"/v2/{APP}/manifests/v1").status == 202
    assert pushable.ask("GET", f"/v2/{APP}/tags/list").json()["tags"] == ["v2", "v3"]
    assert pushable.ask("DELETE", f"/v2/{APP}/manifests/{digest}").status == 202
    for what in ("v2", digest):
        assert pushable.ask("GET", f"/v2/{APP}/manifests/{what}").status == 404
    again = pushable.ask("DELETE", f"/v2/{APP}/manifests/{digest}")
    assert (again.status, again.code) == (404, "MANIFEST_UNKNOWN")


def test_what_the_node_pulled_is_not_changed_from_afar(pushable: Node) -> None:
    config = pushable.push_blob(APP, b"{}")
    digest = pushable.put(APP, "v1", manifest(config)).headers["Docker-Content-Digest"]
    target = pushable.images.get(NAMESPACE, f"{NAME}/{APP}:v1").target
    pushable.image(
        "docker.io/library/box:1",
        {"mediaType": target.media_type, "digest": digest, "size": target.size},
    )
    for method, path in (
        ("DELETE", "/v2/library/box/manifests/1"),
        ("DELETE", "/v2/library/box/manifests/1?ns=docker.io"),
        ("PUT", "/v2/library/box/manifests/1?ns=docker.io"),
        ("POST", "/v2/library/box/blobs/uploads/?ns=docker.io"),
    ):
        answer = pushable.ask(method, path, b"{}")
        assert (answer.status, answer.code) == (403, "DENIED")
    # The same path is pushed beside it, and reuses its blobs.
    assert pushable.ask("HEAD", f"/v2/library/box/blobs/{config['digest']}").status == 200
    assert pushable.put("library/box", "2", manifest(config)).status == 201
    names = {each.name for each in pushable.images.list(NAMESPACE)}
    assert names >= {"docker.io/library/box:1", f"{NAME}/library/box:2"}


def test_a_page_in_a_browser_does_not_push(pushable: Node) -> None:
    answer = pushable.ask(
        "POST", f"/v2/{APP}/blobs/uploads/", b"", {"Origin": "http://evil.example"}
    )
    assert (answer.status, answer.code) == (403, "DENIED")


def test_uploads_that_nobody_ends_are_given_up(
    pushable: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    place = begin(pushable)
    pushable.ask("PATCH", place, b"data")
    later = time.time() + 2 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    begin(pushable)
    assert pushable.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"
    assert len(pushable.leases.list(NAMESPACE)) == 1
