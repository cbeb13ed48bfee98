"""Uploads into a registry of the test's own, which can break off, refuse and limit."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import (
    Cancelled,
    DataLoss,
    InvalidArgument,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.registry import Http, RegistryClient, Uploads
from orlop.registry.host import Host
from orlop.registry.upload import EXISTS, MOUNTED, UPLOADED
from tests.patience import patient
from tests.quiet_server import QuietServer

Spoil = Callable[["_Handler"], bool]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Taker

    def _do(self) -> None:
        self.registry.serve(self)

    do_HEAD = do_GET = do_POST = do_PUT = do_PATCH = _do  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, **headers: str) -> bool:
        self.send_response(status)
        for key, value in {"Content_Length": "0", **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        return True

    def body(self, limit: int = 1 << 40) -> bytes:
        return self.rfile.read(min(int(self.headers["Content-Length"] or 0), limit))

    def hang_up(self) -> bool:
        self.close_connection = True
        self.connection.shutdown(2)
        return True


class Taker:
    """Takes uploads by the specification; `spoil` may deal with a request in its own way."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.sessions: dict[str, bytearray] = {}
        self.manifests: dict[str, bytes] = {}
        self.received = 0
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.mountable: set[str] = set()
        self.spoil: Spoil = lambda _: False
        handler = type("Handler", (_Handler,), {"registry": self})
        self.server = QuietServer(("127.0.0.1", 0), handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]

    def serve(self, request: _Handler) -> None:
        self.requests.append((request.command, request.path, dict(request.headers)))
        if self.spoil(request):
            return
        path, _, query = request.path.partition("?")
        name = path.rpartition("/")[2]
        if "/manifests/" in path:
            self._manifest(request, name)
        elif request.command == "HEAD":
            request.answer(200 if name in self.blobs else 404)
        elif request.command == "POST":
            self._begin(request, query)
        else:
            self._go_on(request, name, query)

    def _manifest(self, request: _Handler, name: str) -> None:
        if request.command == "PUT":
            self.manifests[name] = request.body()
        data = self.manifests.get(name, b"")
        status = 201 if request.command == "PUT" else 200 if data else 404
        request.answer(status, Docker_Content_Digest=digest_of(data))

    def _begin(self, request: _Handler, query: str) -> None:
        found = re.search(r"mount=sha256%3A(\w+)&from=", query)
        if found and f"sha256:{found[1]}" in self.mountable:
            request.answer(201)
            return
        name = f"s{len(self.sessions)}"
        self.sessions[name] = bytearray()
        request.answer(202, Location=f"/v2/x/y/blobs/uploads/{name}?state=a%2Fb")

    def _go_on(self, request: _Handler, name: str, query: str) -> None:
        session = self.sessions.get(name)
        if session is None or not query.startswith("state=a%2Fb"):
            request.answer(404)
            return
        where = f"/v2/x/y/blobs/uploads/{name}?state=a%2Fb"
        if request.command == "GET":
            request.answer(204, Location=where, Range=f"0-{max(len(session) - 1, 0)}")
            return
        start = int(request.headers.get("Content-Range", "0-").partition("-")[0])
        if start != len(session):
            request.answer(416)
            return
        data = request.body()
        self.received += len(data)
        session += data
        if request.command == "PATCH":
            request.answer(202, Location=where, Range=f"0-{len(session) - 1}")
            return
        digest = digest_of(bytes(session))
        if digest.replace(":", "%3A") not in query:
            request.answer(400)
            return
        self.blobs[digest] = bytes(session)
        del self.sessions[name]
        request.answer(201)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def taker() -> Iterator[Taker]:
    made = Taker()
    yield made
    made.close()


@pytest.fixture
def http() -> Iterator[Http]:
    with Http() as made:
        yield made


@pytest.fixture
def uploads(taker: Taker, http: Http) -> Uploads:
    return RegistryClient(reference.parse(f"{taker.host}/x/y:1"), http=http).uploads()


class File:
    """A blob in a file, and how far it was sent."""

    def __init__(self, path: Path, size: int = 3 << 20) -> None:
        self.data = os.urandom(size)
        path.write_bytes(self.data)
        self.fd = os.open(path, os.O_RDONLY)
        self.blob = Descriptor(media_type="x", digest=digest_of(self.data), size=size)
        self.sent: list[int] = []


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    made = File(tmp_path / "blob")
    yield made
    os.close(made.fd)


def _push(uploads: Uploads, file: File, mount: str = "") -> str:
    return uploads.blob(file.blob, file.fd, mount=mount, sent=file.sent.append)


def test_all_at_once(taker: Taker, uploads: Uploads, file: File) -> None:
    assert _push(uploads, file) == UPLOADED
    assert taker.blobs == {file.blob.digest: file.data}
    assert taker.methods() == ["HEAD", "POST", "PUT"]
    assert file.sent[-1] == file.blob.size
    assert file.sent == sorted(file.sent)
    assert _push(uploads, file) == EXISTS
    assert taker.methods()[3:] == ["HEAD"]


def test_an_empty_blob(taker: Taker, uploads: Uploads, tmp_path: Path) -> None:
    file = File(tmp_path / "none", 0)
    assert _push(uploads, file) == UPLOADED
    os.close(file.fd)
    assert taker.blobs == {file.blob.digest: b""}


def test_a_mount_sends_nothing(taker: Taker, uploads: Uploads, file: File) -> None:
    taker.mountable.add(file.blob.digest)
    assert _push(uploads, file, "other/one") == MOUNTED
    assert taker.received == 0
    assert "from=other%2Fone" in taker.requests[1][1]
    taker.mountable.clear()
    assert _push(uploads, file, "other/one") == UPLOADED


def _once(condition: Callable[[_Handler], bool], act: Callable[[_Handler], bool]) -> Spoil:
    left = [True]

    def spoil(request: _Handler) -> bool:
        if left and condition(request):
            left.clear()
            return act(request)
        return False

    return spoil


def _is(method: str) -> Callable[[_Handler], bool]:
    return lambda request: request.command == method


def test_a_broken_upload_goes_on_where_it_broke(taker: Taker, uploads: Uploads, file: File) -> None:
    def keep_a_million(request: _Handler) -> bool:
        taker.sessions["s0"] += request.body(1_000_000)
        taker.received += 1_000_000
        return request.hang_up()

    taker.spoil = _once(_is("PUT"), keep_a_million)
    assert _push(uploads, file) == UPLOADED
    assert taker.blobs[file.blob.digest] == file.data
    assert taker.received == file.blob.size
    assert taker.methods() == ["HEAD", "POST", "PUT", "GET", "PUT"]
    assert taker.requests[-1][2]["Content-Range"] == f"1000000-{file.blob.size - 1}"


def test_a_lost_session_begins_again(taker: Taker, uploads: Uploads, file: File) -> None:
    def forget(request: _Handler) -> bool:
        taker.sessions.clear()
        taker.sessions["old"] = bytearray()  # so that the next has another name
        request.body()
        return request.answer(500)

    taker.spoil = _once(_is("PUT"), forget)
    assert _push(uploads, file) == UPLOADED
    assert taker.methods().count("POST") == 2


def test_a_lost_answer(taker: Taker, uploads: Uploads, file: File) -> None:
    def take_and_hang_up(request: _Handler) -> bool:
        taker.blobs[file.blob.digest] = request.body()
        taker.sessions.clear()
        return request.hang_up()

    taker.spoil = _once(_is("PUT"), take_and_hang_up)
    assert _push(uploads, file) == UPLOADED
    assert taker.methods() == ["HEAD", "POST", "PUT", "GET", "HEAD"]


def test_a_limit_of_requests_makes_chunks(taker: Taker, uploads: Uploads, file: File) -> None:
    def limit(request: _Handler) -> bool:
        if request.command in ("PUT", "PATCH") and int(request.headers["Content-Length"]) > 1 << 20:
            request.close_connection = True
            return request.answer(413, Connection="close")
        return False

    taker.spoil = limit
    assert _push(uploads, file) == UPLOADED
    assert taker.blobs[file.blob.digest] == file.data
    sizes = [
        int(headers["Content-Length"])
        for method, _, headers in taker.requests
        if method == "PATCH" and int(headers["Content-Length"]) <= 1 << 20
    ]
    assert sizes == [file.blob.size // 4] * 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidArgument),
        (403, PermissionDenied),
        (413, ResourceExhausted),
        (500, Unavailable),
        (429, Unavailable),
    ],
)
def test_a_refusal_is_one_clear_error(
    taker: Taker,
    uploads: Uploads,
    file: File,
    status: int,
    kind: type[OrlopError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Http, "pause", lambda *_: None)

    def refuse(request: _Handler) -> bool:
        if request.command not in ("PUT", "PATCH"):
            return False
        request.body()
        return request.answer(status)

    taker.spoil = refuse
    with pytest.raises(kind) as caught:
        _push(uploads, file)
    text = str(caught.value)
    assert taker.host in text
    assert f"status {status}" in text
    if kind is Unavailable:
        assert file.blob.digest in text
    assert not taker.blobs


@pytest.mark.parametrize("where", ["http://x:99999/", "http://[bad/", "ftp://x/"])
def test_an_upload_that_is_to_go_nowhere(
    taker: Taker, uploads: Uploads, file: File, where: str
) -> None:
    taker.spoil = lambda request: request.command == "POST" and request.answer(202, Location=where)
    with pytest.raises(Unavailable, match="leads to"):
        _push(uploads, file)


@pytest.mark.parametrize("status", [307, 308, 302])
def test_opening_an_upload_may_be_redirected(
    taker: Taker, uploads: Uploads, file: File, status: int
) -> None:
    taker.spoil = _once(
        _is("POST"), lambda request: request.answer(status, Location=f"{request.path}?again=1")
    )
    if status == 302:
        with pytest.raises(OrlopError, match="with status 302"):
            _push(uploads, file)
    else:
        assert _push(uploads, file) == UPLOADED
        assert taker.methods() == ["HEAD", "POST", "POST", "PUT"]


def test_where_an_upload_goes_on_is_for_who_opened_it_to_say(
    taker: Taker, uploads: Uploads, file: File
) -> None:
    """By an address without a host, that of another registry to which the first one redirects."""
    other = Taker()
    try:
        there = f"http://{other.host}/v2/x/y/blobs/uploads/"
        taker.spoil = _once(_is("POST"), lambda request: request.answer(307, Location=there))
        assert _push(uploads, file) == UPLOADED
        assert other.blobs[file.blob.digest] == file.data
        assert taker.methods() == ["HEAD", "POST"]
        assert other.methods() == ["POST", "PUT"]
    finally:
        other.close()


def test_secrets_stay_when_an_upload_moves(taker: Taker, http: Http, file: File) -> None:
    other = Taker()
    try:
        other.sessions["s0"] = bytearray()
        where = f"http://{other.host}/v2/x/y/blobs/uploads/s0?state=a%2Fb"
        taker.spoil = _once(_is("POST"), lambda request: request.answer(202, Location=where))
        client = RegistryClient(
            reference.parse(f"{taker.host}/x/y:1"),
            http=http,
            headers={"Authorization": "Bearer hush", "X-Token": "hush"},
        )
        assert _push(client.uploads(), file) == UPLOADED
        assert other.blobs[file.blob.digest] == file.data
        assert "hush" in str(taker.requests)
        assert "hush" not in str(other.requests)
    finally:
        other.close()


def test_a_pause_may_be_longer_than_making_the_connection(
    taker: Taker, http: Http, tmp_path: Path
) -> None:
    file = File(tmp_path / "blob", 32 << 20)  # more than the buffers on the way take

    def pause(request: _Handler) -> bool:
        time.sleep(1)
        return False

    taker.spoil = _once(_is("PUT"), pause)
    hosts = [Host("http", taker.host, dial_timeout=0.2)]
    client = RegistryClient(reference.parse("example.com/x/y:1"), http=http, hosts=hosts)
    assert _push(client.uploads(), file) == UPLOADED
    os.close(file.fd)
    assert taker.methods() == ["HEAD", "POST", "PUT"]


def test_an_upload_can_be_cancelled(taker: Taker, uploads: Uploads, http: Http, file: File) -> None:
    reached, over = threading.Event(), threading.Event()

    def stall(request: _Handler) -> bool:
        reached.set()
        over.wait(patient(60))
        return request.hang_up()

    taker.spoil = _once(_is("PUT"), stall)
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            _push(uploads, file)
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert reached.wait(patient(20))
    http.abort()
    thread.join(patient(20))
    over.set()
    assert not thread.is_alive()
    assert outcome


def test_manifests(taker: Taker, uploads: Uploads) -> None:
    data = b'{"schemaVersion":2}'
    wanted = Descriptor(media_type=MANIFEST, digest=digest_of(data), size=len(data))
    assert not uploads.has_manifest("1", wanted)
    assert uploads.manifest("1", data, MANIFEST) is False
    assert taker.requests[-1][2]["Content-Type"] == MANIFEST
    assert uploads.has_manifest("1", wanted)
    taker.spoil = lambda request: request.answer(
        201, Docker_Content_Digest=digest_of(b"other"), OCI_Subject=digest_of(b"")
    )
    with pytest.raises(DataLoss, match="took"):
        uploads.manifest("1", data, MANIFEST)
