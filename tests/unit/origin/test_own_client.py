"""orlop's registry client on orlop's registry: two halves of one protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from orlop.errors import NotFound, Unimplemented
from orlop.oci import reference
from orlop.registry import Http, RegistryClient, listing
from tests.archive_fixture import MANIFEST, digest_of
from tests.origin_fixture import Node


@pytest.fixture
def http() -> Iterator[Http]:
    with Http() as made:
        yield made


def client(node: Node, http: Http, name: str = "team/app:v1") -> RegistryClient:
    return RegistryClient(reference.parse(f"127.0.0.1:{node.port}/{name}"), http=http)


def push(node: Node, tag: str, **more: object) -> str:
    """Push a small manifest; its digest."""
    config = node.push_blob("team/app", b"{}")
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [], **more
    }  # fmt: skip
    data = json.dumps(document).encode()
    assert node.put("team/app", tag or digest_of(data), data).status == 201
    return digest_of(data)


def test_resolve_and_fetch(pushable: Node, http: Http) -> None:
    digest = push(pushable, "v1")
    found = client(pushable, http).resolve()
    assert found.digest == digest
    assert digest_of(client(pushable, http).fetch_document(found)) == digest
    with pytest.raises(NotFound, match="v2"):
        client(pushable, http, "team/app:v2").resolve()


def test_lists(pushable: Node, http: Http) -> None:
    for number in range(5):
        subject = push(pushable, f"v{number}")
    repository = client(pushable, http).repository()
    assert list(listing.tags(repository, page=2)) == [f"v{number}" for number in range(5)]
    assert list(listing.repositories(repository)) == ["team/app"]
    where = {"mediaType": MANIFEST, "digest": subject, "size": 1}
    sbom = push(pushable, "", subject=where, artifactType="sbom/x")
    assert [each.digest for each in listing.referrers(repository, subject)] == [sbom]
    assert listing.referrers(repository, subject, "signature/x") == []


def test_deletion(pushable: Node, http: Http) -> None:
    digest = push(pushable, "v1")
    repository = client(pushable, http).repository("delete")
    listing.delete_manifest(repository, digest)
    with pytest.raises(NotFound):
        listing.delete_manifest(repository, digest)
    with pytest.raises(Unimplemented):
        listing.delete_blob(repository, digest)
