"""A large blob over slow connections comes in parts, side by side."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import pytest

from orlop.errors import Cancelled, DataLoss
from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.registry import Http, RegistryClient, download
from tests.lying_registry import Registry, digest_of, send
from tests.patience import patient

SIZE = 3_000_000
DATA = os.urandom(SIZE)


class Slow:
    """Serves DATA at 4 MB/s on each connection; `ranges` says whether in parts."""

    def __init__(self, *, ranges: bool = True) -> None:
        self.ranges = ranges
        self.asked: list[str] = []
        self.at_once = self.most = 0
        self.cut: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, request: BaseHTTPRequestHandler) -> bool:
        wanted = request.headers.get("Range", "")
        self.asked.append(wanted)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if found and self.ranges:
            data = DATA[int(found[1]) : int(found[2]) + 1 if found[2] else None]
            request.send_response(206)
        else:
            data = DATA
            request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if wanted in self.cut:
            self.cut.remove(wanted)
            data = data[: len(data) // 2]
            request.close_connection = True
        self._send(request, data)
        return True

    def _send(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            for start in range(0, len(data), 40_000):
                time.sleep(0.01)
                request.wfile.write(data[start : start + 40_000])
        except OSError:
            pass  # the client has had enough
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PART", 300_000)
    monkeypatch.setattr(download, "_TASTE", 200_000)
    monkeypatch.setattr(download, "_REST_MIN", 500_000)


@pytest.fixture
def http() -> Iterator[Http]:
    with Http() as made:
        yield made


WANTED = Descriptor(media_type="x", digest=digest_of(DATA), size=SIZE)


def _client(lying: Registry, http: Http) -> RegistryClient:
    return RegistryClient(reference.parse(f"{lying.host}/x/y:1"), http=http)


def _fetch(lying: Registry, http: Http, offset: int = 0) -> bytes:
    with closing(_client(lying, http).open_blob(WANTED, offset)) as stream:
        return b"".join(stream)


def test_side_by_side(lying: Registry, http: Http) -> None:
    lying.spoil = slow = Slow()
    assert _fetch(lying, http) == DATA
    assert slow.most in (4, 5)  # the first may not have noticed that it is not wanted any more
    parts = slow.asked[1:]
    begin = min(int(each[6:].partition("-")[0]) for each in parts)  # where the first was left
    ends = ((start, min(start + 300_000, SIZE) - 1) for start in range(begin, SIZE, 300_000))
    assert sorted(parts) == sorted(f"bytes={start}-{end}" for start, end in ends)
    assert begin < SIZE // 2
    assert _fetch(lying, http, 1_234_567) == DATA[1_234_567:]


def test_a_fast_connection_is_enough(
    lying: Registry, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_SLOW", 1.0)  # whatever the machine does beside
    asked = []

    def fast(request: BaseHTTPRequestHandler) -> bool:
        asked.append(1)
        return send(request, 200, DATA)

    lying.spoil = fast
    assert _fetch(lying, http) == DATA
    assert len(asked) == 1


def test_a_part_that_breaks_is_taken_up(lying: Registry, http: Http) -> None:
    lying.spoil = slow = Slow()
    slow.cut = {f"bytes={start}-{start + 299_999}" for start in range(200_000, SIZE, 40_000)}
    assert _fetch(lying, http) == DATA
    assert len(slow.asked) > 11


def test_a_registry_without_ranges(lying: Registry, http: Http) -> None:
    lying.spoil = Slow(ranges=False)
    assert _fetch(lying, http) == DATA


def test_a_part_of_another_size(lying: Registry, http: Http) -> None:
    slow = Slow()

    def longer(request: BaseHTTPRequestHandler) -> bool:
        if "Range" in request.headers:
            return send(request, 206, b"x" * 300_001)
        return slow(request)

    lying.spoil = longer
    with pytest.raises(DataLoss, match="were announced"):
        _fetch(lying, http)


def test_an_early_end_gives_up_the_parts(lying: Registry, http: Http) -> None:
    lying.spoil = slow = Slow()
    before = threading.active_count()
    with closing(_client(lying, http).open_blob(WANTED)) as stream:
        chunks = iter(stream)
        while len(slow.asked) < 4:
            next(chunks)
        began = time.monotonic()
    assert time.monotonic() - began < patient(10)
    assert [t.name for t in threading.enumerate() if t.name.startswith("part")] == []
    assert threading.active_count() <= before + 8  # those of the test's registry


def test_cancel(lying: Registry, http: Http) -> None:
    slow, aborted = Slow(), threading.Event()

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        if len(slow.asked) >= 4:
            aborted.wait(20)  # so that there is something left to break off
        return slow(request)

    lying.spoil = spoil

    def abort() -> None:
        while len(slow.asked) < 4:
            time.sleep(0.01)
        http.abort()
        aborted.set()

    thread = threading.Thread(target=abort)
    thread.start()
    with pytest.raises(Cancelled):
        _fetch(lying, http)
    thread.join()
