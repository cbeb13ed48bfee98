from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from orlop.errors import (
    Cancelled,
    DataLoss,
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.registry import Ask, Credentials, Http, RegistryClient
from orlop.registry.host import Host, default_host
from tests.lying_registry import MANIFEST, Registry, send
from tests.patience import patient

Request = BaseHTTPRequestHandler


@pytest.fixture
def http() -> Iterator[Http]:
    with Http() as made:
        yield made


@pytest.fixture
def client(lying: Registry, http: Http) -> RegistryClient:
    return _client(lying, http)


def _client(lying: Registry, http: Http, name: str = "latest", **options: Any) -> RegistryClient:
    at = "@" if ":" in name else ":"
    return RegistryClient(reference.parse(f"{lying.host}/x/y{at}{name}"), http=http, **options)


def _blob(lying: Registry, size: int = 200_000) -> tuple[bytes, Descriptor]:
    data = random.Random(1).randbytes(size)
    put = lying.put(data)
    return data, Descriptor(media_type="x/y", digest=put["digest"], size=size)


def _read(client: RegistryClient, wanted: Descriptor, offset: int = 0) -> bytes:
    stream = client.open_blob(wanted, offset)
    try:
        return b"".join(stream)
    finally:
        stream.close()


def _first(count: int, act: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """Do something else with the first requests."""
    left = iter(range(count))

    def spoil(request: Request) -> bool:
        if next(left, None) is None:
            return False
        return act(request)

    return spoil


# Resolve


def test_resolve_by_head(lying: Registry, client: RegistryClient) -> None:
    lying.image()
    digest = lying.tags["latest"]
    found = client.resolve()
    assert found == Descriptor(media_type=MANIFEST, digest=digest, size=len(lying.blobs[digest]))
    assert [method for method, _, _ in lying.requests] == ["HEAD"]
    assert MANIFEST in lying.requests[0][2]["Accept"]
    assert client.fetch_document(found) == lying.blobs[digest]


@pytest.mark.parametrize("status", [405, 404, 403])
def test_a_registry_without_head(lying: Registry, client: RegistryClient, status: int) -> None:
    lying.image()
    lying.spoil = lambda r: r.command == "HEAD" and send(r, status, b"")
    assert client.resolve().digest == lying.tags["latest"]


def test_a_registry_that_tells_no_digest(lying: Registry, http: Http) -> None:
    lying.image()
    data = lying.blobs[lying.tags["latest"]]

    def answer(request: Request) -> bool:
        send(request, 200, data, {"Content-Type": f"{MANIFEST}; charset=utf-8"})
        return True

    lying.spoil = answer
    assert _client(lying, http).resolve().digest == lying.tags["latest"]
    strong = Digest.of(data, "sha512")
    assert _client(lying, http, strong).resolve().digest == strong
    with pytest.raises(DataLoss, match="with digest"):
        _client(lying, http, Digest.of(b"another")).resolve()


def test_an_unknown_image(lying: Registry, client: RegistryClient) -> None:
    with pytest.raises(NotFound) as caught:
        client.resolve()
    text = str(caught.value)
    assert text.startswith(f'image "{lying.host}/x/y:latest": registry "{lying.host}" answers')
    assert "MANIFEST_UNKNOWN" in text


def test_scheme_and_host() -> None:
    def base(name: str, scheme: str = "") -> str:
        return default_host(name, scheme).url("/x")

    assert base("docker.io") == "https://registry-1.docker.io/v2/x"
    assert base("example.com:80", "http") == "http://example.com:80/v2/x"
    for local in ("localhost", "localhost:5000", "127.0.0.7:1", "[::1]:5000", "127.1.2.3"):
        assert base(local) == f"http://{local}/v2/x"
    assert base("localhost:1", "https") == "https://localhost:1/v2/x"
    assert base("127.0.0.1.example.com").startswith("https:")
    with pytest.raises(InvalidArgument, match="gopher"):
        base("a.b", "gopher")


# Blobs


def test_a_blob_in_pieces(lying: Registry, client: RegistryClient) -> None:
    data, wanted = _blob(lying)
    assert _read(client, wanted) == data
    assert _read(client, wanted, 150_000) == data[150_000:]
    assert lying.requests[-1][2]["Range"] == "bytes=150000-"
    assert _read(client, wanted, len(data)) == b""
    assert len(lying.requests) == 2


def test_a_registry_that_ignores_range(lying: Registry, client: RegistryClient) -> None:
    data, wanted = _blob(lying)
    lying.spoil = lambda r: send(r, 200, data)
    assert _read(client, wanted, 150_000) == data[150_000:]


def test_getting_on_is_enough(lying: Registry, client: RegistryClient) -> None:
    """Breaking off often is no failure while some of it comes each time."""
    data, wanted = _blob(lying, 8_000_000)

    def cut(request: Request) -> bool:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        send(request, 206 if start else 200, data[start:], cut=600_000)
        return True

    lying.spoil = cut
    assert _read(client, wanted) == data
    assert len(lying.requests) > 10


def test_getting_nowhere_is_not(lying: Registry, client: RegistryClient) -> None:
    data, wanted = _blob(lying)

    def cut(request: Request) -> bool:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        send(request, 206 if start else 200, data[start:], cut=10)
        return True

    lying.spoil = cut
    with pytest.raises(Unavailable, match=f"{wanted.digest} broke off 6 times, last at 60 of"):
        _read(client, wanted)


def test_another_size(lying: Registry, client: RegistryClient) -> None:
    data, wanted = _blob(lying)
    for other in (data + b"x", data[:-1]):
        lying.spoil = lambda r, other=other: send(r, 200, other)  # type: ignore[misc]
        with pytest.raises(DataLoss, match=f"has {len(other)} bytes, {len(data)} were announced"):
            _read(client, wanted)

    def endless(request: Request) -> bool:
        request.send_response(200)
        request.end_headers()  # no length: until it is closed
        request.close_connection = True
        request.wfile.write(data + data)
        return True

    lying.spoil = endless
    with pytest.raises(DataLoss, match="has more bytes"):
        _read(client, wanted)


def test_documents_are_verified(lying: Registry, client: RegistryClient) -> None:
    data, wanted = _blob(lying, 1000)
    assert client.fetch_document(wanted) == data
    lying.spoil = lambda r: send(r, 200, data[:-1] + b"?")
    with pytest.raises(DataLoss, match="whose digest is sha256:"):
        client.fetch_document(wanted)
    lying.spoil = lambda r: send(r, 200, data + bytes(9 << 20))
    with pytest.raises(DataLoss, match="has more bytes, 1000 were announced"):
        client.fetch_document(wanted)
    with pytest.raises(InvalidArgument, match="too large"):
        client.fetch_document(Descriptor(media_type="x/y", digest=wanted.digest, size=5 << 20))


def test_a_document_that_breaks_off_is_fetched_again(
    lying: Registry, client: RegistryClient
) -> None:
    data, wanted = _blob(lying, 1000)
    lying.spoil = _first(2, lambda r: send(r, 200, data, cut=10))
    assert client.fetch_document(wanted) == data


# Retries and errors


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_trying_again(lying: Registry, client: RegistryClient, status: int) -> None:
    data, wanted = _blob(lying, 100)
    soon = formatdate(time.time() + 1, usegmt=True)
    lying.spoil = _first(2, lambda r: send(r, status, b"not now", {"Retry-After": soon}))
    assert client.fetch_document(wanted) == data
    assert len(lying.requests) == 3


def test_retry_after_is_heeded(lying: Registry, client: RegistryClient) -> None:
    _, wanted = _blob(lying, 100)
    lying.spoil = _first(1, lambda r: send(r, 429, b"", {"Retry-After": "1"}))
    began = time.monotonic()
    client.fetch_document(wanted)
    assert 0.7 < time.monotonic() - began < patient(10)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidArgument), (401, Unauthenticated), (403, PermissionDenied), (404, NotFound),
     (416, DataLoss), (429, Unavailable), (500, Unavailable)],
)  # fmt: skip
def test_errors_say_what_the_registry_says(
    lying: Registry, client: RegistryClient, status: int, kind: type[OrlopError]
) -> None:
    _, wanted = _blob(lying, 100)
    body = b'{"errors": [{"code": "DENIED", "message": "no\x1b[2J\\u001b[2J way", "detail": {}}]}'
    headers = {"WWW-Authenticate": f'Bearer realm="http://{lying.host}/token"', "Retry-After": "0"}
    lying.spoil = lambda r: (
        send(r, 200, b'{"token": "t"}') if "/token" in r.path else send(r, status, body, headers)
    )
    with pytest.raises(kind) as caught:
        client.fetch_document(wanted)
    text = str(caught.value)
    assert lying.host in text
    assert wanted.digest in text
    assert f"status {status}" in text
    assert "DENIED" in text
    assert "\x1b" not in text


def test_no_registry_there(http: Http) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    client = RegistryClient(reference.parse(f"127.0.0.1:{port}/x:1"), http=http)
    with pytest.raises(Unavailable) as caught:
        client.resolve()
    text = str(caught.value)
    assert f'registry "127.0.0.1:{port}" does not answer' in text
    assert "/manifests/1: [Errno 111] Connection refused" in text
    assert "0x" not in str(caught.value)


def test_plain_where_tls_is_expected(lying: Registry, http: Http) -> None:
    with pytest.raises(Unavailable, match="does not speak TLS"):
        _client(lying, http, scheme="https").resolve()


# Secrets


def _guarded(lying: Registry, secret: str = "pass", life: int = 300) -> Callable[[Request], bool]:
    def guard(request: Request) -> bool:
        if request.path.startswith("/token"):
            send(request, 200, f'{{"token": "{secret}", "expires_in": {life}}}'.encode())
        elif request.headers.get("Authorization") == f"Bearer {secret}":
            return False
        else:
            realm = f'Bearer realm="http://{lying.host}/token",service="s"'
            send(request, 401, b"", {"WWW-Authenticate": realm})
        return True

    return guard


def test_one_token_for_all_threads(lying: Registry, client: RegistryClient) -> None:
    _, wanted = _blob(lying)
    lying.spoil = _guarded(lying)
    threads = [threading.Thread(target=_read, args=(client, wanted)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("/token" in path for _, path, _ in lying.requests) == 1


def test_credentials_are_asked_for_once(lying: Registry, http: Http) -> None:
    asked = []

    def ask(_: str, challenges: Any) -> Credentials:
        asked.append(challenges)
        return Credentials("me", "hush")

    _, wanted = _blob(lying, 10)
    lying.spoil = _guarded(lying)
    client = _client(lying, http, ask=ask)
    client.fetch_document(wanted)
    client.fetch_document(wanted)
    assert len(asked) == 1
    assert "realm=" in asked[0][0]


@pytest.mark.parametrize("ask", [None, lambda *_: Credentials("me", "hush")])
def test_refused_for_good(lying: Registry, http: Http, ask: Ask | None) -> None:
    lying.spoil = _guarded(lying, secret="changes")
    guard = lying.spoil
    lying.spoil = lambda r: (
        guard(r)
        if "/token" in r.path
        else send(r, 401, b"", {"WWW-Authenticate": f'Bearer realm="http://{lying.host}/token"'})
    )
    with pytest.raises(Unauthenticated, match="wants credentials, or other ones") as caught:
        _client(lying, http, ask=ask).resolve()
    assert "hush" not in str(caught.value)
    assert len(lying.requests) < 10


def test_secrets_stay_with_their_host(lying: Registry, http: Http) -> None:
    data, wanted = _blob(lying)
    other = Registry()
    try:
        guard = _guarded(lying)
        query = "signature=hush"
        lying.spoil = lambda r: (
            guard(r) or send(r, 307, b"", {"Location": f"http://{other.host}/b?{query}"})
        )
        other.spoil = lambda r: send(r, 200, data)
        client = _client(lying, http, headers={"X-Secret": "hush"})
        assert _read(client, wanted) == data
        ((_, path, headers),) = other.requests
        assert path.endswith(query)
        assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}
        assert all(h["X-Secret"] == "hush" for _, p, h in lying.requests if "/token" not in p)
        assert not [h for _, p, h in lying.requests if "/token" in p and "X-Secret" in h]

        other.spoil = lambda r: send(r, 403, b"<Error>expired</Error>")
        with pytest.raises(PermissionDenied, match="expired") as caught:
            _read(client, wanted)
        assert "hush" not in str(caught.value)
    finally:
        other.close()


def test_what_is_shown_of_requests_holds_no_secrets(lying: Registry) -> None:
    lying.image()
    guard = _guarded(lying, secret="hush-token")
    signed = f"http://{lying.host}/v2/x/y/manifests/latest?signature=hush"
    moved = iter([True])

    def spoil(request: Request) -> bool:
        if guard(request):
            return True
        return next(moved, False) and send(
            request, 307, b"", {"Location": signed, "Set-Cookie": "hush"}
        )

    lying.spoil = spoil
    shown: list[str] = []
    with Http(dump=shown.append) as http:
        ask = lambda *_: Credentials("me", "hush")  # noqa: E731
        client = _client(lying, http, ask=ask, headers={"X-Secret": "hush"})
        assert client.resolve().digest == lying.tags["latest"]
    text = "".join(shown)
    assert text.startswith(f"HEAD http://{lying.host}/v2/x/y/manifests/latest\r\n")
    assert "HTTP 401 Unauthorized\r\n" in text
    assert "Authorization: …\r\n" in text
    assert f"Location: {signed.partition('?')[0]}\r\n" in text
    assert f"Docker-Content-Digest: {lying.tags['latest']}\r\n" in text
    assert "hush" not in text


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("//me:hush@127.0.0.1:1/x?key=hush", "//127.0.0.1:1/x"),
        ("http://me:hush@127.0.0.1:1/x#hush", "http://127.0.0.1:1/x"),
        ("/v2/x?key=hush", "/v2/x"),
        ("http:me:hush@x", "…"),
        ("http://[hush", "…"),
    ],
)
def test_what_is_shown_of_a_redirect(lying: Registry, location: str, shown: str) -> None:
    lying.spoil = lambda r: send(r, 302, b"", {"Location": location})
    heads: list[str] = []
    with Http(dump=heads.append) as http:
        http.once("GET", f"http://{lying.host}/", {}).close()
    assert f"Location: {shown}\r\n" in heads[1]
    assert "hush" not in heads[1]


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://x/y", "http://[bad", "http://x:99999/", "//:0/"]
)
def test_unsafe_redirects(lying: Registry, client: RegistryClient, location: str) -> None:
    _, wanted = _blob(lying)
    lying.spoil = lambda r: send(r, 302, b"", {"Location": location})
    with pytest.raises((Unavailable, InvalidArgument)):
        _read(client, wanted)


def test_redirects_in_a_circle(lying: Registry, client: RegistryClient) -> None:
    _, wanted = _blob(lying)
    lying.spoil = lambda r: send(r, 302, b"", {"Location": r.path})
    with pytest.raises(Unavailable, match="more than 5 redirects"):
        _read(client, wanted)


# An end to every wait


def _aborted_while(http: Http, work: Callable[[], object]) -> float:
    """Abort some work; the seconds until it has ended with Cancelled."""
    caught: list[OrlopError] = []

    def run() -> None:
        try:
            work()
        except OrlopError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    http.abort()
    thread.join(10)
    assert [type(each) for each in caught] == [Cancelled]
    return time.monotonic() - began


@pytest.mark.parametrize("where", ["headers", "body", "pause"])
def test_abort(lying: Registry, http: Http, where: str) -> None:
    data, wanted = _blob(lying)
    release = threading.Event()

    def stall(request: Request) -> bool:
        if where == "pause":
            send(request, 503, b"", {"Retry-After": "30"})
            return True
        if where == "body":
            request.send_response(200)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data[:1000])
        release.wait(20)
        return True

    lying.spoil = stall
    client = _client(lying, http)
    try:
        assert _aborted_while(http, lambda: _read(client, wanted)) < patient(8)
    finally:
        release.set()
    with pytest.raises(Cancelled):
        client.resolve()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_abort_a_connection_that_is_not_made(http: Http, scheme: str) -> None:
    """A full backlog: the kernel leaves further connections unanswered. TLS: nobody says hello."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        fill = [] if scheme == "https" else [_half_open(port) for _ in range(4)]
        client = RegistryClient(reference.parse(f"127.0.0.1:{port}/x:1"), http=http, scheme=scheme)
        try:
            assert _aborted_while(http, client.resolve) < patient(8)
        finally:
            for each in fill:
                each.close()


def test_abort_while_a_name_is_looked_up(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    client = RegistryClient(reference.parse("registry.test/x:1"), http=http)
    try:
        assert _aborted_while(http, client.resolve) < patient(8)
    finally:
        over.set()


def test_a_name_that_is_looked_up_for_too_long(
    lying: Registry, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying.image()
    over, found = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **more: Any) -> Any:
        return over.wait(60) and [] if host == "mirror.test" else found(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    hosts = [Host("http", "mirror.test", dial_timeout=0.2), Host("http", lying.host)]
    client = RegistryClient(reference.parse("x.test/x:latest"), http=http, hosts=hosts)
    try:
        assert client.resolve().digest == lying.tags["latest"]
        assert not over.is_set()
    finally:
        over.set()


def _half_open(port: int) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.connect_ex(("127.0.0.1", port))
    return made


def test_connections_are_used_again(lying: Registry, http: Http) -> None:
    _, wanted = _blob(lying, 100)
    client = _client(lying, http)
    ports = set()
    inner = lying.answer

    def answer(request: Request) -> None:
        ports.add(request.client_address)
        inner(request)

    lying.answer = answer  # type: ignore[method-assign]
    for _ in range(5):
        client.fetch_document(wanted)
    assert len(ports) == 1


def test_words_are_cut_short(lying: Registry, client: RegistryClient) -> None:
    _, wanted = _blob(lying, 10)
    lying.spoil = lambda r: send(r, 403, b"blah " * 100_000)
    with pytest.raises(PermissionDenied) as caught:
        _read(client, wanted)
    assert len(str(caught.value)) < 700
    assert re.search("blah…|…", str(caught.value))


def test_credentials_are_not_for_a_host_that_one_is_sent_to(lying: Registry, http: Http) -> None:
    """A redirect's target may ask, and name a realm of its own; it gets nothing."""
    _, wanted = _blob(lying)
    asked: list[object] = []

    def ask(_: str, challenges: object) -> Credentials:
        asked.append(challenges)
        return Credentials("me", "secret")

    other = Registry()

    def demand(request: Request) -> bool:
        realm = f'Bearer realm="http://{other.host}/token"'
        send(request, 401, b"", {"WWW-Authenticate": realm})
        return True

    def redirect(request: Request) -> bool:
        send(request, 307, b"", {"Location": f"http://{other.host}/b"})
        return True

    lying.spoil, other.spoil = redirect, demand
    try:
        with pytest.raises(Unauthenticated):
            _read(_client(lying, http, ask=ask), wanted)
        assert asked == []
        assert [path for _, path, _ in other.requests] == ["/b"]
        assert "Authorization" not in other.requests[0][2]
    finally:
        other.close()
