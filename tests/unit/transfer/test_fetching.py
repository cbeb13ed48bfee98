"""Documents and blobs of an image that somebody made to cost much, or left damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.errors import ResourceExhausted
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.oci import reference
from orlop.oci.manifest import Manifest, parse
from orlop.registry import Http, RegistryClient
from orlop.rpc import CallContext
from orlop.transfer import documents
from orlop.transfer.fetch import Fetcher
from orlop.transfer.labels import ref_key
from orlop.transfer.progress import Progress
from tests.lying_registry import INDEX, MANIFEST, Registry


@pytest.fixture
def content(tmp_path: Path) -> Iterator[ContentStore]:
    database = Database(tmp_path / "meta.db")
    yield ContentStore(database, tmp_path / "content", Exchange())
    database.close()


@pytest.fixture
def told() -> list[Progress]:
    return []


@pytest.fixture
def fetcher(lying: Registry, content: ContentStore, told: list[Progress]) -> Iterator[Fetcher]:
    with Http() as http:
        client = RegistryClient(reference.parse(f"{lying.host}/x/y:latest"), http=http)
        yield Fetcher(content, client, "ns", "", CallContext(), told.append)


def test_a_layer_that_is_named_many_times(
    lying: Registry, fetcher: Fetcher, told: list[Progress]
) -> None:
    layer = lying.image()
    manifest = json.loads(lying.blobs[lying.tags["latest"]])
    lying.tag(json.dumps({**manifest, "layers": [layer] * 900}).encode(), MANIFEST)
    target = fetcher.client.resolve()
    found = parse(fetcher.document(target), target.media_type)
    assert isinstance(found, Manifest)
    fetcher.adopt(target, found.layers)
    told.clear()
    fetcher.blob(found.layers[0])
    assert {each.parents for each in told} == {(f"manifest-{target.digest}",)}


@pytest.mark.parametrize("left", [-5, 0])
def test_a_document_of_which_something_else_was_left(
    lying: Registry, fetcher: Fetcher, content: ContentStore, left: int
) -> None:
    lying.image()
    target = fetcher.client.resolve()
    with content.writer("ns", ref_key(target), total=target.size, expected=target.digest) as writer:
        writer.write(bytes(target.size + left))
    data = lying.blobs[target.digest]
    assert fetcher.document(target) == data
    assert content.read("ns", target.digest) == data


@pytest.mark.parametrize("most", [9_999, 1_000_000])
def test_documents_without_end(
    lying: Registry, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(documents, "_KEPT_MAX", most)
    lying.image()
    manifest = json.loads(lying.blobs[lying.tags["latest"]])
    notes = [{"note": f"{at}{'n' * 2000}"} for at in range(5)]
    crowd = [
        lying.put(json.dumps({**manifest, "annotations": each}).encode(), MANIFEST)
        for each in notes
    ]
    lying.tag(json.dumps({"schemaVersion": 2, "manifests": crowd}).encode(), INDEX)
    wanted = documents.Documents(fetcher, fetcher.client.resolve())
    if most < 10_000:
        with pytest.raises(ResourceExhausted, match="more than 9999 bytes"):
            wanted.choose([])
    else:
        assert len(wanted.choose([])) == 5
