"""orlopd is killed while images are pushed to its registry; what it says it has, it has."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.archive_fixture import CONFIG, LAYER, MANIFEST, digest_of
from tests.served_fixture import Served

pytestmark = pytest.mark.root

KILLS = 5


def _push(served: Served, number: int) -> str:
    """Push an image of two blobs; the digest of its manifest."""
    layer = random.Random(number).randbytes(3 << 20)
    config = json.dumps({"architecture": "amd64", "os": "linux", "n": number}).encode()
    for data in (layer, config):
        assert served.upload("app", digest_of(data), data).status == 201
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": digest_of(layer), "size": len(layer)}],
        }
    ).encode()
    path = f"/v2/app/manifests/v{number}"
    assert served.ask("PUT", path, manifest, {"Content-Type": MANIFEST}).status == 201
    return digest_of(manifest)


def _pushing(served: Served, said: dict[str, str], stop: threading.Event) -> Callable[[], None]:
    """Pushes images until told to stop; `said` gets those that were confirmed."""

    def go() -> None:
        number = len(said)
        while not stop.is_set():
            try:
                said[f"v{number}"] = _push(served, number)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)  # killed: the same image again
                continue
            number += 1

    return go


def test_what_was_confirmed_is_there_and_whole(pushable_daemon: Served) -> None:
    daemon = pushable_daemon.daemon
    said: dict[str, str] = {}
    for number in range(KILLS):
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            pusher = pool.submit(_pushing(pushable_daemon, said, stop))
            try:
                if number == 0:
                    daemon.wait_for(lambda: bool(said))
                time.sleep(0.2 + 0.4 * random.random())
                daemon.kill9()
            finally:
                stop.set()
            pusher.result(60)
        daemon.start()
    assert said
    for tag, digest in said.items():
        answer = pushable_daemon.ask("GET", f"/v2/app/manifests/{tag}")
        assert answer.headers["Docker-Content-Digest"] == digest
        document = answer.json()
        for child in (document["config"], *document["layers"]):
            blob = pushable_daemon.ask("GET", f"/v2/app/blobs/{child['digest']}")
            assert f"sha256:{hashlib.sha256(blob.body).hexdigest()}" == child["digest"]
    checked = daemon.ctr("images", "check").stdout.splitlines()[1:]
    assert len(checked) >= len(said)
    assert all(" complete (" in line for line in checked)
