"""Each fault of a registry: one clear error, nothing half-made, a retry that goes on."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import pytest

from orlop.client.pull import pull_image
from orlop.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from tests import daemon_fixture
from tests.daemon_fixture import Orlopd
from tests.leases_left import assert_only_brief_leases
from tests.lying_registry import INDEX, MANIFEST, Answer, Registry, digest_of, send, tar_of

pytestmark = pytest.mark.root

GOOD: Answer = lambda _: False  # noqa: E731
_BOUND = 8 << 20  # no answer is worth more bytes than a document may have, and what sockets hold
_RETRIES_LIMIT = 20.0


@pytest.fixture(scope="module")
def orlopd() -> Iterator[Orlopd]:
    """One orlopd for all faults: none of them may spoil it for the next."""
    yield from daemon_fixture.serving()


@pytest.fixture(autouse=True)
def _no_ingest_stays(orlopd: Orlopd) -> Iterator[None]:
    folder = orlopd.root / "content/ingest"
    before = set(folder.iterdir())
    yield
    assert set(folder.iterdir()) <= before


@pytest.fixture
def layer(lying: Registry) -> dict[str, Any]:
    """The layer of an image that no other test has."""
    tar = tar_of("noise", os.urandom(200_000))
    return lying.image(layer=gzip.compress(tar, 1), diff_id=digest_of(tar))


def _pull(orlopd: Orlopd, lying: Registry) -> None:
    with orlopd.connect() as connection:
        pull_image(connection, f"{lying.host}/x/y:latest")


def _refusal(orlopd: Orlopd, lying: Registry, kind: type[OrlopError]) -> str:
    """The error of a pull, which names the registry and leaves nothing half-made."""
    before, images = _snapshots(orlopd), orlopd.ctr("images", "ls", "-q").stdout
    began = time.monotonic()
    with pytest.raises(OrlopError) as caught:
        _pull(orlopd, lying)
    assert time.monotonic() - began < _RETRIES_LIMIT
    assert type(caught.value) is kind, caught.value
    message = str(caught.value)
    assert lying.host in message
    assert "\n" not in message
    assert len(message) < 1000
    # That there is none of this host would not do: a former one may have had its port.
    assert orlopd.ctr("images", "ls", "-q").stdout == images
    assert_only_brief_leases(orlopd)
    orlopd.wait_for(lambda: _snapshots(orlopd) <= before)  # fewer: garbage of an earlier test
    _assert_whole(orlopd)
    return message


def _snapshots(orlopd: Orlopd) -> set[str]:
    return {path.name for path in (orlopd.root / "snapshots/overlayfs/snapshots").iterdir()}


def _assert_whole(orlopd: Orlopd) -> None:
    for path in (orlopd.root / "content/blobs/sha256").iterdir():
        with suppress(FileNotFoundError):  # it was garbage, and has just gone
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _assert_heals(orlopd: Orlopd, lying: Registry) -> None:
    lying.spoil = GOOD
    _pull(orlopd, lying)
    assert f"{lying.host}/x/y:latest" in orlopd.ctr("images", "ls", "-q").stdout
    _assert_whole(orlopd)


def _raw(request: BaseHTTPRequestHandler, data: bytes) -> bool:
    request.wfile.write(data)
    request.close_connection = True
    return True


def _status(code: int, **headers: str) -> Answer:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda request: send(request, code, b"as you like", named)


def test_a_registry_that_is_busy_until_a_date(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any]
) -> None:
    left = [1]

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        if not request.path.endswith(layer["digest"]) or not left[0]:
            return False
        left[0] -= 1
        until = formatdate(time.time() + 2, usegmt=True)
        return send(request, 429, b"", {"Retry-After": until})

    lying.spoil = spoil
    began = time.monotonic()
    _pull(orlopd, lying)
    assert 0.7 < time.monotonic() - began < 40
    _assert_whole(orlopd)


def test_a_tag_that_moves_during_a_pull(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any]
) -> None:
    """What the tag named first is what comes, all of it."""
    first = lying.tags["latest"]

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        if request.command == "GET" and lying.tags["latest"] == first:
            lying.image(os.urandom(1000), digest_of(b"another"))
        return False

    lying.spoil = spoil
    _pull(orlopd, lying)
    assert lying.tags["latest"] != first
    shown = orlopd.ctr("images", "ls", f"name=={lying.host}/x/y:latest").stdout
    assert first in shown
    assert layer["digest"] in orlopd.ctr("content", "ls", "-q").stdout.split()
    assert lying.tags["latest"] not in orlopd.ctr("content", "ls", "-q").stdout.split()
    _assert_whole(orlopd)


class Fault(NamedTuple):
    """What is answered to requests for a part, and the error that says so."""

    part: str
    answer: Answer
    kind: type[OrlopError]
    words: str


_FAULTS = {
    "layer missing": Fault("layer", _status(404), NotFound, "status 404"),
    "layer out of range": Fault("layer", _status(416), DataLoss, "status 416"),
    "layer never there": Fault("layer", _status(503), Unavailable, "status 503"),
    "layer forbidden": Fault("layer", _status(401), Unauthenticated, "wants credentials"),
    "layer too short": Fault(
        "layer", lambda request: send(request, 200, b"short"), DataLoss, "has 5 bytes"
    ),
    "layer of another length by its header": Fault(
        "layer",
        lambda request: _raw(
            request, b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
        ),
        Unavailable,
        "broke off",
    ),
    "layer elsewhere in a circle": Fault(
        "layer",
        lambda request: send(request, 307, b"", {"Location": request.path}),
        Unavailable,
        "redirects",
    ),
    "layer in a file": Fault(
        "layer", _status(307, Location="file:///etc/passwd"), Unavailable, "not safe"
    ),
    "layer nowhere": Fault(
        "layer", _status(307, Location="http://[:::/"), Unavailable, "malformed"
    ),
    "config missing": Fault("config", _status(404), NotFound, "status 404"),
    "manifest too many requests": Fault(
        "manifest",
        _status(429, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"),
        Unavailable,
        "status 429",
    ),
    "manifest not HTTP": Fault(
        "manifest", lambda request: _raw(request, b"SSH-2.0-OpenSSH_9\r\n"), Unavailable, "answer"
    ),
    "manifest of a malformed digest": Fault(
        "tag",
        lambda request: send(
            request, 200, b"", {"Docker-Content-Digest": "sha256:../..", "Content-Type": MANIFEST}
        ),
        InvalidArgument,
        "digest",
    ),
    "manifest of another content": Fault(
        "manifest", lambda request: send(request, 200, b"{}"), DataLoss, "were announced"
    ),
    "manifest of a terabyte": Fault(
        "tag",
        lambda request: _raw(
            request,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\nContent-Type: "
            + MANIFEST.encode()
            + b"\r\nDocker-Content-Digest: "
            + digest_of(b"x").encode()
            + b"\r\n\r\n",
        ),
        InvalidArgument,
        "too large",
    ),
    "manifest of a size beyond numbers": Fault(
        "tag",
        lambda request: _raw(
            request,
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            if request.command == "GET"
            else b"HTTP/1.1 200 OK\r\nContent-Length: "
            + b"9" * 5000
            + b"\r\nContent-Type: "
            + MANIFEST.encode()
            + b"\r\nDocker-Content-Digest: "
            + digest_of(b"x").encode()
            + b"\r\n\r\n",
        ),
        NotFound,
        "status 404",
    ),
}


def _is(lying: Registry, part: str, layer: dict[str, Any]) -> Callable[[str], bool]:
    manifest = lying.tags["latest"]
    config = json.loads(lying.blobs[manifest])["config"]["digest"]
    names = {"tag": "latest", "manifest": manifest, "config": config, "layer": layer["digest"]}
    return lambda path: path.endswith(f"/{names[part]}")


@pytest.mark.parametrize("name", _FAULTS)
def test_a_fault_is_one_clear_error(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any], name: str
) -> None:
    fault = _FAULTS[name]
    concerns = _is(lying, fault.part, layer)
    lying.spoil = lambda request: concerns(request.path) and fault.answer(request)
    message = _refusal(orlopd, lying, fault.kind)
    assert fault.words in message
    if fault.part == "layer" and fault.kind is not Unauthenticated:
        assert layer["digest"] in message
    _assert_heals(orlopd, lying)


def test_what_has_come_is_not_fetched_again(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any]
) -> None:
    """Each connection gives 10,000 bytes, until the pull gives up; the next goes on from there."""
    data = lying.blobs[layer["digest"]]
    given = []

    def cut(request: BaseHTTPRequestHandler) -> bool:
        if not request.path.endswith(layer["digest"]):
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        given.append(start)
        return send(request, 206 if start else 200, data[start:], cut=10_000)

    lying.spoil = cut
    assert "broke off" in _refusal(orlopd, lying, Unavailable)
    assert given == [10_000 * number for number in range(6)]
    lying.requests.clear()
    _assert_heals(orlopd, lying)
    paths = [path.rpartition("/")[2] for _, path, _ in lying.requests]
    assert paths == ["latest", layer["digest"]]  # the documents are here
    assert lying.requests[1][2]["Range"] == "bytes=60000-"


def test_other_bytes_of_the_same_length(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any]
) -> None:
    noise = os.urandom(layer["size"])
    lying.spoil = lambda request: (
        request.path.endswith(layer["digest"]) and send(request, 200, noise)
    )
    message = _refusal(orlopd, lying, DataLoss)
    assert "damaged" in message
    _assert_heals(orlopd, lying)


def test_damaged_bytes_of_a_broken_download_do_not_stay(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any]
) -> None:
    """What is resumed may be damaged: then it is fetched anew, in the same pull."""
    noise = lying.blobs[layer["digest"]][:20_000] + os.urandom(layer["size"] - 20_000)
    lying.spoil = lambda request: (
        request.path.endswith(layer["digest"])
        and (
            send(request, 404, b"")
            if "Range" in request.headers
            else send(request, 200, noise, cut=50_000)
        )
    )
    _refusal(orlopd, lying, NotFound)
    _assert_heals(orlopd, lying)


def _endless(request: BaseHTTPRequestHandler, sent: list[int]) -> bool:
    """A chunked body without an end."""
    request.send_response(200)
    request.send_header("Content-Type", MANIFEST)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.close_connection = True
    if request.command == "HEAD":
        return True
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    try:
        for _ in range(64 * _BOUND // len(piece)):
            request.wfile.write(piece)
            sent[0] += len(piece)
    except OSError:
        return True
    return True


@pytest.mark.parametrize("part", ["tag", "manifest", "config"])
def test_an_endless_document(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any], part: str
) -> None:
    concerns, sent = _is(lying, part, layer), [0]
    lying.spoil = lambda request: concerns(request.path) and _endless(request, sent)
    _refusal(orlopd, lying, InvalidArgument if part == "tag" else DataLoss)
    assert sent[0] < _BOUND + (8 << 20)
    _assert_heals(orlopd, lying)


_LAYER: dict[str, Any] = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
_DOCUMENTS = {
    "half a letter": '{"schemaVersion": 2, "mediaType": "é'.encode()[:-1],
    "deep": b"[" * 1_000_000,
    "a list": b"[]",
    "huge size": json.dumps(
        {"config": {**_LAYER, "digest": digest_of(b"x"), "size": 10**30}, "layers": []}
    ).encode(),
    "size beyond the database": json.dumps(
        {"config": {"mediaType": "a/b", "digest": digest_of(b"x"), "size": 2**63}, "layers": []}
    ).encode(),
    "negative size": json.dumps(
        {"config": {**_LAYER, "digest": digest_of(b"x"), "size": -1}, "layers": []}
    ).encode(),
    "digest of nothing": json.dumps(
        {"config": {**_LAYER, "digest": "../../x", "size": 1}, "layers": []}
    ).encode(),
    "manifest and index": json.dumps({"config": {}, "layers": [], "manifests": []}).encode(),
}


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_a_document_that_makes_no_sense(orlopd: Orlopd, lying: Registry, name: str) -> None:
    lying.tag(_DOCUMENTS[name], MANIFEST)
    _refusal(orlopd, lying, InvalidArgument)


def test_more_descriptors_than_a_document_holds(orlopd: Orlopd, lying: Registry) -> None:
    many = [{"mediaType": MANIFEST, "digest": digest_of(b"x"), "size": 1}] * 100_000
    lying.tag(json.dumps({"schemaVersion": 2, "manifests": many}).encode(), INDEX)
    assert "too large" in _refusal(orlopd, lying, InvalidArgument)
    assert {command for command, _, _ in lying.requests} == {"HEAD"}


def _guard(lying: Registry, token: Answer) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> bool:
        if request.path.startswith("/token"):
            return token(request)
        if request.headers.get("Authorization") == "Bearer pass":
            return False
        challenge = f'Bearer realm="http://{lying.host}/token",service="s"'
        return send(request, 401, b"", {"WWW-Authenticate": challenge})

    return answer


def _token(text: str) -> Answer:
    return lambda request: send(request, 200, json.dumps({"token": text}).encode())


_TOKENS: dict[str, tuple[Answer, type[OrlopError]]] = {
    "failing": (_status(500), Unavailable),
    "refusing": (_status(403), PermissionDenied),
    "garbage": (lambda request: send(request, 200, b"\xff{"), InvalidArgument),
    "none": (lambda request: send(request, 200, b"{}"), Unauthenticated),
    "refused again": (_token("wrong"), Unauthenticated),
    "not of a header's letters": (_token("пропуск"), Unauthenticated),
    "with a header in it": (_token("pass\r\nX-Evil: 1"), Unauthenticated),
    "too long": (_token("x" * 1_000_000), Unauthenticated),
    "endless": (lambda request: _endless(request, [0]), InvalidArgument),
}


@pytest.mark.parametrize("name", _TOKENS)
def test_a_token_server_at_fault(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any], name: str
) -> None:
    token, kind = _TOKENS[name]
    lying.spoil = _guard(lying, token)
    _refusal(orlopd, lying, kind)
    assert not [1 for _, _, headers in lying.requests if "X-Evil" in headers]
    _assert_heals(orlopd, lying)


@pytest.mark.parametrize("life", ["0", "-5", "1e300", "null"])
def test_odd_lifetimes_of_a_token(
    orlopd: Orlopd, lying: Registry, layer: dict[str, Any], life: str
) -> None:
    body = f'{{"token": "pass", "expires_in": {life}}}'.encode()
    lying.spoil = _guard(lying, lambda request: send(request, 200, body))
    _pull(orlopd, lying)
