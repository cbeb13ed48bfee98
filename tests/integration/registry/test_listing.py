"""Lists and deletes, in Debian's docker-registry and in one that has an API for referrers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import random

import pytest

from orlop.errors import InvalidArgument, NotFound, ResourceExhausted
from orlop.oci import reference
from orlop.registry import Http, RegistryClient, listing
from orlop.registry.repository import Repository
from tests.lying_registry import INDEX, Registry, digest_of, send
from tests.registry_fixture import run_registry, skopeo_copy


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[str]:
    with run_registry(tmp_path_factory.mktemp("filled")) as host:
        for name in ("a/one:t1", "a/one:t2", "a/one:t3", "a/two:t1", "b:t1"):
            skopeo_copy(f"oci:{layout}:latest", f"docker://{host}/{name}")
        yield host


@pytest.fixture
def http() -> Iterator[Http]:
    with Http() as made:
        yield made


def _repository(host: str, http: Http, name: str = "a/one", actions: str = "pull") -> Repository:
    return RegistryClient(reference.parse(f"{host}/{name}"), http=http).repository(actions)


def test_tags_and_repositories(filled: str, http: Http) -> None:
    repository = _repository(filled, http)
    assert sorted(listing.tags(repository)) == ["t1", "t2", "t3"]
    assert list(listing.repositories(repository)) == ["a/one", "a/two", "b"]
    assert list(listing.repositories(repository, page=1)) == ["a/one", "a/two", "b"]
    assert list(listing.repositories(repository, last="a/one")) == ["a/two", "b"]
    with pytest.raises(NotFound, match="status 404"):
        list(listing.tags(_repository(filled, http, "a/none")))


def test_deletes(filled: str, http: Http) -> None:
    client = RegistryClient(reference.parse(f"{filled}/b:t1"), http=http)
    found = client.resolve()
    repository = client.repository("pull,push,delete")
    listing.delete_manifest(repository, found.digest)
    with pytest.raises(NotFound):
        client.resolve()
    with pytest.raises(NotFound):
        listing.delete_manifest(repository, found.digest)
    with pytest.raises(NotFound):
        listing.delete_blob(repository, digest_of(b"none"))


def _note(kind: str) -> dict[str, object]:
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest_of(kind.encode()), "size": 9, "artifactType": kind,
    }  # fmt: skip


def test_referrers_by_the_api(lying: Registry, http: Http) -> None:
    digest = digest_of(b"subject")
    seen = []

    def answer(request: object) -> bool:
        path = request.path  # type: ignore[attr-defined]
        seen.append(path)
        last = "page=2" in path
        index = {
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [_note("x/b" if last else "x/a")],
        }  # fmt: skip
        headers = {"Content-Type": INDEX}
        if not last:
            headers["Link"] = f'</v2/a/one/referrers/{digest}?page=2>; rel="next"'
        return send(request, 200, json.dumps(index).encode(), headers)  # type: ignore[arg-type]

    lying.spoil = answer
    repository = _repository(lying.host, http)
    found = listing.referrers(repository, digest)
    assert [each.artifact_type for each in found] == ["x/a", "x/b"]
    assert [each.artifact_type for each in listing.referrers(repository, digest, "x/b")] == ["x/b"]
    assert "artifactType=x%2Fb" in seen[2]


def test_referrers_by_a_tag(lying: Registry, http: Http) -> None:
    digest = digest_of(b"subject")
    repository = _repository(lying.host, http)
    assert listing.referrers(repository, digest) == []
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [_note("x/a"), _note("x/b")]}
    tag = digest.replace(":", "-")
    lying.tags[tag] = str(lying.put(json.dumps(index).encode(), INDEX)["digest"])
    assert [each.artifact_type for each in listing.referrers(repository, digest, "x/b")] == ["x/b"]


def test_lists_that_make_no_sense(
    lying: Registry, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = _repository(lying.host, http)
    lying.spoil = lambda request: send(request, 200, b'{"tags": 5}')
    with pytest.raises(InvalidArgument, match="does not parse"):
        list(listing.tags(repository))
    elsewhere = {"Link": '<http://127.0.0.2:1/v2/x>; rel="next"'}
    lying.spoil = lambda request: send(request, 200, b'{"tags": ["a"]}', elsewhere)
    with pytest.raises(InvalidArgument, match="which is elsewhere"):
        list(listing.tags(repository))
    monkeypatch.setattr(listing, "_PAGES_MAX", 5)
    lying.spoil = lambda request: send(request, 200, b'{"tags": ["a"]}', _following(request))
    with pytest.raises(ResourceExhausted, match="more than 5 pages"):
        list(listing.tags(repository))
    again = {"Link": "</v2/a/one/tags/list?last=a>; rel=next"}
    lying.spoil = lambda request: send(request, 200, b'{"tags": ["a"]}', again)
    with pytest.raises(InvalidArgument, match="goes on where it has been"):
        list(listing.tags(repository))


@pytest.mark.parametrize("goes_back", [False, True])
def test_lists_that_another_registry_has(lying: Registry, http: Http, goes_back: bool) -> None:
    """They go on there, unless the link names the registry that was asked."""
    other = Registry()
    place = "/v2/a/one/tags/list"
    link = f"<{f'http://{lying.host}' if goes_back else ''}{place}?last=a>; rel=next"

    def redirect(request: BaseHTTPRequestHandler) -> bool:
        if "last=a" in request.path:
            return send(request, 200, b'{"tags": ["here"]}')
        return send(request, 307, b"", {"Location": f"http://{other.host}{place}"})

    def answer(request: BaseHTTPRequestHandler) -> bool:
        if "last=a" in request.path:
            return send(request, 200, b'{"tags": ["there"]}')
        return send(request, 200, b'{"tags": ["a"]}', {"Link": link})

    lying.spoil, other.spoil = redirect, answer
    try:
        found = list(listing.tags(_repository(lying.host, http)))
    finally:
        other.close()
    assert found == ["a", "here" if goes_back else "there"]


def _following(request: BaseHTTPRequestHandler) -> dict[str, str]:
    """A link to ever another page."""
    return {"Link": f"<{request.path.partition('?')[0]}?last={random()}>; rel=next"}


@pytest.mark.parametrize(
    ("count", "note", "words"), [(4000, 0, "more than 10000 entries"), (1, 3 << 20, "too long")]
)
def test_referrers_without_end(
    lying: Registry, http: Http, count: int, note: int, words: str
) -> None:
    """Many, or long ones."""
    listed = {**_note("x/a"), "annotations": {"note": "n" * note}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed] * count}
    page = json.dumps(index).encode()

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        if "/referrers/" not in request.path or len(lying.requests) > 20:
            return False
        return send(request, 200, page, _following(request))

    lying.spoil = spoil
    with pytest.raises(ResourceExhausted, match=words):
        listing.referrers(_repository(lying.host, http), digest_of(b"subject"))
    assert len(lying.requests) < 15
