"""A registry that falls silent: its connection is given up, and what has come is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest

from orlop.errors import Unavailable
from orlop.oci.descriptor import Descriptor
from orlop.oci.reference import parse
from orlop.registry import Http, RegistryClient, pace
from tests.lying_registry import MANIFEST, Registry

DATA = bytes(range(256)) * 40


@pytest.fixture
def client(lying: Registry) -> Iterator[RegistryClient]:
    with Http(read_limit=1.5) as http:
        yield RegistryClient(parse(f"{lying.host}/x/y:latest"), http=http)


@pytest.fixture
def patient_client(lying: Registry) -> Iterator[RegistryClient]:
    """One that silence does not make give up."""
    with Http(read_limit=20) as http:
        yield RegistryClient(parse(f"{lying.host}/x/y:latest"), http=http)


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set at the end: whoever stalls waits for it."""
    event = threading.Event()
    yield event
    event.set()


def _stall(request: BaseHTTPRequestHandler, over: threading.Event, start: int, count: int) -> bool:
    request.send_response(206 if start else 200)
    request.send_header("Content-Length", str(len(DATA) - start))
    request.end_headers()
    request.wfile.write(DATA[start : start + count])
    request.close_connection = True
    over.wait(10)
    return True


def _blob(lying: Registry) -> Descriptor:
    found = lying.put(DATA)
    return Descriptor(media_type="a/b", digest=found["digest"], size=found["size"])


def test_silence_in_a_blob(lying: Registry, client: RegistryClient, over: threading.Event) -> None:
    wanted = _blob(lying)
    counts = {0: 1000, 1000: 500}

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        count = counts.get(start)
        return count is not None and _stall(request, over, start, count)

    lying.spoil = spoil
    assert b"".join(client.open_blob(wanted)) == DATA
    ranges = [headers.get("Range") for _, _, headers in lying.requests]
    # The machine may have been silent as well: then some are asked for twice.
    assert list(dict.fromkeys(ranges))[:3] == [None, "bytes=1000-", "bytes=1500-"]


def _trickle(request: BaseHTTPRequestHandler, data: bytes, over: threading.Event) -> bool:
    """A byte now and then, sooner than silence is noticed."""
    with suppress(OSError):
        for byte in data:
            request.wfile.write(bytes([byte]))
            if over.wait(0.05):
                break
    request.close_connection = True
    return True


def test_a_blob_that_trickles(
    lying: Registry,
    patient_client: RegistryClient,
    over: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "WINDOW", 2.0)
    wanted = _blob(lying)
    once = iter([True])

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        if not next(once, False):
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        return _trickle(request, DATA, over)

    lying.spoil = spoil
    assert b"".join(patient_client.open_blob(wanted)) == DATA
    (_, _, first), (_, _, second), *_ = lying.requests
    assert "Range" not in first
    assert 0 < int(second["Range"][6:-1]) < 1000


def test_a_manifest_that_trickles(
    lying: Registry,
    patient_client: RegistryClient,
    over: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "WINDOW", 2.0)
    lying.image()

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        request.send_response(200)
        request.send_header("Content-Type", MANIFEST)
        request.send_header("Content-Length", "5000")
        request.end_headers()
        return _trickle(request, b" " * 5000, over)

    wanted = patient_client.resolve()
    lying.spoil = spoil
    with pytest.raises(Unavailable, match=r"only .* bytes came in"):
        patient_client.fetch_document(wanted)


def test_a_head_that_trickles(lying: Registry, over: threading.Event) -> None:
    lying.spoil = lambda request: _trickle(request, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000, over)
    began = time.monotonic()
    with Http(read_limit=0.2) as http, pytest.raises(Unavailable, match="does not answer"):
        RegistryClient(parse(f"{lying.host}/x/y:latest"), http=http).resolve()
    assert time.monotonic() - began < 15


def test_silence_for_good(lying: Registry, client: RegistryClient, over: threading.Event) -> None:
    wanted = _blob(lying)
    lying.spoil = lambda request: _stall(request, over, 0, 0)
    with pytest.raises(Unavailable, match=f"{wanted.digest} broke off 6 times.*timed out"):
        list(client.open_blob(wanted))
