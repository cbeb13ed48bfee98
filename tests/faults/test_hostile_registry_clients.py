"""Clients of orlopd's registry that send what no client should, or nothing at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from orlop.web import Limits
from tests.archive_fixture import digest_of
from tests.origin_fixture import Node, Starting
from tests.patience import patient, wait_for

BLOB = bytes(range(256)) * 4096


def connect(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=10)


def say(node: Node, *pieces: bytes) -> bytes:
    """Send pieces, then read until the server hangs up."""
    with closing(connect(node)) as client:
        with suppress(OSError):
            for each in pieces:
                client.sendall(each)
            client.shutdown(socket.SHUT_WR)
        return b"".join(_received(client))


def _received(client: socket.socket) -> Iterator[bytes]:
    with suppress(ConnectionError):
        while piece := client.recv(65536):
            yield piece


def status(answer: bytes) -> int:
    """The status of the first response."""
    return int(answer.split(None, 2)[1])


def works(node: Node) -> bool:
    return node.ask("GET", "/v2/").status == 200


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"GET /v2/" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /v2/ HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", 431),
        (b"GET /v2/ HTTP/9.9\r\n\r\n", 505),
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v2/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v2/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /v2/ HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400),
        (b"POST /v2/ HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET http://[/v2/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2/?" + b"a=b&" * 100 + b" HTTP/1.1\r\n\r\n", 400),
        (b"BREW /v2/ HTTP/1.1\r\n\r\n", 405),
        (b"GET /v2/%00%ff/tags/list HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x/v2/..%2f..%2fetc/passwd HTTP/1.1\r\n\r\n", 404),
    ],
)  # fmt: skip
def test_what_is_no_request(pushable: Node, request_bytes: bytes, expected: int) -> None:
    assert status(say(pushable, request_bytes)) == expected
    assert works(pushable)


def test_a_body_is_never_taken_for_a_request(pushable: Node) -> None:
    """What follows a refused body on the same connection is not answered."""
    hidden = b"GET /v2/_catalog HTTP/1.1\r\n\r\n"
    for method, path in ((b"GET", b"/v2/"), (b"PUT", b"/v2/a/manifests/..")):
        head = b"%s %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (method, path, len(hidden))
        answer = say(pushable, head + hidden)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"repositories" not in answer


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-5\r\n", b"5\r\nabcdefgh\r\n", b"f" * 9000])
def test_chunks_that_are_none(pushable: Node, chunk: bytes) -> None:
    place = str(pushable.ask("POST", "/v2/a/blobs/uploads/").headers["Location"]).encode()
    head = b"PATCH %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % place
    say(pushable, head, chunk)
    assert pushable.ask("GET", place.decode()).status == 204
    assert works(pushable)


def test_a_push_that_breaks_off_keeps_what_came(pushable: Node) -> None:
    place = str(pushable.ask("POST", "/v2/a/blobs/uploads/").headers["Location"])
    head = f"PATCH {place} HTTP/1.1\r\nContent-Length: {len(BLOB)}\r\n\r\n".encode()
    say(pushable, head, BLOB[:5000])
    deadline = time.monotonic() + patient(30)
    while (there := pushable.ask("GET", place)).headers["Range"] != "0-4999":
        assert time.monotonic() < deadline
    rest = {"Content-Range": f"5000-{len(BLOB) - 1}"}
    assert pushable.ask("PATCH", place, BLOB[5000:], rest).status == 202
    assert there.status == 204
    assert pushable.ask("PUT", f"{place}?digest={digest_of(BLOB)}").status == 201


def test_silent_and_slow_clients_are_sent_away(starting: Starting) -> None:
    node = starting(limits=Limits(patience=0.5))
    with closing(connect(node)) as silent, closing(connect(node)) as dripping:
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() < began + 30:
                dripping.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - began < patient(15)
        assert silent.recv(1) == b""


def test_no_more_connections_than_there_are_threads_for(starting: Starting) -> None:
    pushable = starting(push=True, limits=Limits(connections=8))
    before = threading.active_count()
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(pushable))) for _ in range(40)]
        refused = 0
        for each in clients[8:]:
            with suppress(ConnectionError):
                assert each.recv(1) == b""
            refused += 1
        assert refused == 32
        assert threading.active_count() <= before + 9
    deadline = time.monotonic() + patient(30)
    while True:
        with suppress(OSError):
            if works(pushable):
                return
        assert time.monotonic() < deadline


def test_it_stops_at_once_while_clients_hang(pushable: Node) -> None:
    big = BLOB[: 1 << 20]
    assert pushable.push_blob("a", big)
    path = f"/v2/a/blobs/{digest_of(big)}"
    with ExitStack() as stack:
        readers = [stack.enter_context(closing(connect(pushable))) for _ in range(3)]
        for each in readers:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode() * 20)
        idle = stack.enter_context(closing(connect(pushable)))
        idle.sendall(b"GET /v2/ HT")
        time.sleep(0.3)
        began = time.monotonic()
        pushable.origin.close()
        assert time.monotonic() - began < patient(8)
        wait_for(lambda: not any(t.name.startswith("registry") for t in threading.enumerate()), 5)
    pushable.database.close()
    pushable.start()
