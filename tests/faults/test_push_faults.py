"""Each fault of a registry that is pushed to: it is overcome, or it is one clear error.

The registry is Debian's; a proxy before it makes the fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from orlop.client.push import push_image
from orlop.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from tests import daemon_fixture
from tests.archive_fixture import Files, add, image, layout, named, tar_of
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import run_registry
from tests.spoiling_proxy import Passing, Spoil, SpoilingProxy

pytestmark = pytest.mark.root

_LAYER = 1_500_000
_RETRIES_LIMIT = 20.0


@pytest.fixture(scope="module")
def orlopd() -> Iterator[Orlopd]:
    """One orlopd for all faults: none of them may spoil it for the next."""
    yield from daemon_fixture.serving()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def proxy(upstream: str) -> Iterator[SpoilingProxy]:
    with closing(SpoilingProxy(upstream)) as made:
        yield made


@dataclass(frozen=True)
class Cargo:
    """An image that orlopd has, and no registry: its name, its digest, and that of its layer."""

    name: str
    digest: str
    layer: str


@pytest.fixture
def cargo(orlopd: Orlopd, tmp_path: Path) -> Cargo:
    mark = os.urandom(6).hex()
    name = f"example.com/cargo:{mark}"
    files: Files = {}
    made = image(files, text=mark)
    path = f"blobs/{made['digest'].replace(':', '/')}"
    document = json.loads(files.pop(path))
    noise = tar_of({"noise": os.urandom(_LAYER)})
    layer = add(files, noise, "application/vnd.oci.image.layer.v1.tar")
    document["layers"] = [layer]
    target = {**made, **add(files, json.dumps(document).encode(), made["mediaType"])}
    archive = tmp_path / "cargo.tar"
    archive.write_bytes(tar_of(layout(files, named(target, name, "io.containerd.image.name"))))
    orlopd.ctr("images", "import", "--no-unpack", str(archive))
    return Cargo(name, str(target["digest"]), str(layer["digest"]))


def _push(orlopd: Orlopd, cargo: Cargo, proxy: SpoilingProxy, repository: str = "x/y") -> None:
    with orlopd.connect() as connection:
        push_image(connection, cargo.name, f"{proxy.host}/{repository}:1")


def _assert_arrived(cargo: Cargo, upstream: str, repository: str = "x/y") -> None:
    """skopeo finds the image there, and every part of it."""
    name = f"docker://{upstream}/{repository}:1"
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", name],
        capture_output=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == cargo.digest
    subprocess.run(
        ["skopeo", "inspect", "--config", "--tls-verify=false", name],
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip


def _assert_nothing_stays(orlopd: Orlopd) -> None:
    assert orlopd.ctr("leases", "ls", "-q").stdout == ""
    assert not list((orlopd.root / "content/ingest").iterdir())
    for path in (orlopd.root / "content/blobs/sha256").iterdir():
        with suppress(FileNotFoundError):  # it was garbage, and has just gone
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


# What is spoilt, and how often

When = Callable[[Passing], bool]


def _opens(request: Passing) -> bool:
    return request.command == "POST"


def _mounts(request: Passing) -> bool:
    return request.command == "POST" and "mount=" in request.path


def _sends(request: Passing) -> bool:
    """A part of the layer, not of the config."""
    return "/blobs/uploads/" in request.path and request.size > 100_000


def _chunk(request: Passing) -> bool:
    return request.command == "PATCH"


def _whole(request: Passing) -> bool:
    return request.command == "PUT" and _sends(request)


def _manifest(request: Passing) -> bool:
    return request.command == "PUT" and "/manifests/" in request.path


def _session(request: Passing) -> bool:
    return request.command == "GET" and "/blobs/uploads/" in request.path


def _first(when: When, act: Spoil, times: int = 1) -> Spoil:
    """Spoil the first such requests."""
    left = [times]

    def spoil(request: Passing) -> bool:
        if not when(request) or not left[0]:
            return False
        left[0] -= 1
        return act(request)

    return spoil


def _always(when: When, act: Spoil) -> Spoil:
    return lambda request: when(request) and act(request)


def _both(*spoils: Spoil) -> Spoil:
    return lambda request: any(spoil(request) for spoil in spoils)


def _status(code: int, words: str = "", message: str = "", **headers: str) -> Spoil:
    body = json.dumps({"errors": [{"code": words, "message": message}]}).encode() if words else b""
    fields = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda request: request.answer(code, body, fields)


def _says(**headers: str) -> Spoil:
    """The registry's own answer, with other headers; "" takes one away."""

    def change(fields: dict[str, str]) -> None:
        for key, value in headers.items():
            fields.pop(key.replace("_", "-"), None)
            if value:
                fields[key.replace("_", "-")] = value

    return lambda request: request.relay(change)


def _relative(request: Passing) -> bool:
    def change(fields: dict[str, str]) -> None:
        parts = urlsplit(fields["Location"])
        fields["Location"] = f"{parts.path}?{parts.query}"

    return request.relay(change)


def _limit(size: int) -> Spoil:
    return _always(lambda request: request.size > size, _status(413))


_LOST = _status(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
_OTHER = f"sha256:{'0' * 64}"


def _soon() -> str:
    return formatdate(time.time() + 2, usegmt=True)


_OVERCOME: dict[str, Callable[[], Spoil]] = {
    "session lost": lambda: _both(_first(_whole, _LOST), _first(_session, _LOST)),
    "session lost between chunks": lambda: _both(
        _limit(600_000), _first(_chunk, _LOST), _first(_session, _LOST)
    ),
    "chunk out of range": lambda: _both(_limit(600_000), _first(_chunk, _status(416))),
    "limit of a proxy": lambda: _limit(300_000),
    "session at a relative place": lambda: _first(_opens, _relative, 9),
    "server error": lambda: _first(_sends, _status(500), 2),
    "bad gateway at the manifest": lambda: _first(_manifest, _status(502), 2),
    "busy": lambda: _first(_sends, _status(503, Retry_After="1")),
    "busy until a date": lambda: _first(_sends, _status(429, Retry_After=_soon())),
    "busy at the start": lambda: _first(_opens, _status(429, Retry_After="1")),
    "cut in the middle": lambda: _first(_sends, lambda request: request.hang_up(700_000)),
    "cut at the start": lambda: _first(_opens, lambda request: request.hang_up(0)),
    "answer lost": lambda: _first(_whole, lambda request: request.relay() and _drop(request)),
}


def _drop(request: Passing) -> bool:
    request.close_connection = True
    return True


@pytest.mark.parametrize("fault", _OVERCOME)
def test_it_is_overcome(
    orlopd: Orlopd, cargo: Cargo, proxy: SpoilingProxy, upstream: str, fault: str
) -> None:
    proxy.spoil = _OVERCOME[fault]()
    _push(orlopd, cargo, proxy)
    _assert_arrived(cargo, upstream)
    _assert_nothing_stays(orlopd)


class Refusal(NamedTuple):
    """What is answered, the error that says so, and what else it says."""

    spoil: Spoil
    kind: type[OrlopError]
    words: str


_REFUSED = {
    "session always lost": Refusal(
        _both(_always(_sends, _LOST), _always(_session, _LOST)), Unavailable, "BLOB_UPLOAD_UNKNOWN"
    ),
    "every chunk out of range": Refusal(
        _both(_limit(600_000), _always(_chunk, _status(416))), Unavailable, "status 416"
    ),
    "no request is small enough": Refusal(
        _always(_sends, _status(413)), ResourceExhausted, "takes no request of that size"
    ),
    "never there": Refusal(_always(_sends, _status(503)), Unavailable, "status 503"),
    "every connection cut": Refusal(
        _always(_sends, lambda request: request.hang_up(0)), Unavailable, "failed 6 times"
    ),
    "another digest is taken": Refusal(
        _always(_whole, _says(Docker_Content_Digest=_OTHER)), DataLoss, _OTHER
    ),
    "may not push": Refusal(
        _always(_opens, _status(403, "DENIED", "requested access is denied")),
        PermissionDenied,
        "requested access is denied",
    ),
    "no such repository": Refusal(
        _always(_opens, _status(404, "NAME_UNKNOWN", "create it first")), NotFound, "create it"
    ),
    "read only": Refusal(
        _always(_opens, _status(405, "UNSUPPORTED", "read only")), Unimplemented, "read only"
    ),
    "session nowhere": Refusal(
        _always(_opens, _says(Location="")), Unavailable, "without saying where"
    ),
    "session in a file": Refusal(
        _always(_opens, _says(Location="file:///etc/passwd")), Unavailable, "not safe"
    ),
    "session at no address": Refusal(
        _always(_opens, _says(Location="http://[:::/")), Unavailable, "malformed"
    ),
    "manifest refused": Refusal(
        _always(_manifest, _status(400, "MANIFEST_INVALID", "no good")), InvalidArgument, "no good"
    ),
    "manifest of another digest": Refusal(
        _always(_manifest, _says(Docker_Content_Digest=_OTHER)), DataLoss, _OTHER
    ),
    "manifest not allowed": Refusal(
        _always(_manifest, _status(405, "UNSUPPORTED", "tags stay")), Unimplemented, "tags stay"
    ),
    "manifest of nowhere": Refusal(
        _always(_manifest, _status(404, "NAME_UNKNOWN", "gone")), NotFound, "gone"
    ),
}


@pytest.mark.parametrize("fault", _REFUSED)
def test_it_is_one_clear_error(
    orlopd: Orlopd, cargo: Cargo, proxy: SpoilingProxy, upstream: str, fault: str
) -> None:
    refusal = _REFUSED[fault]
    proxy.spoil = refusal.spoil
    began = time.monotonic()
    with pytest.raises(OrlopError) as caught:
        _push(orlopd, cargo, proxy, "a/place")
    assert time.monotonic() - began < _RETRIES_LIMIT
    assert type(caught.value) is refusal.kind, caught.value
    message = str(caught.value)
    for each in (refusal.words, proxy.host, "a/place"):
        assert each in message
    assert "\n" not in message
    assert len(message) < 1000
    _assert_nothing_stays(orlopd)
    proxy.spoil = lambda _: False
    _push(orlopd, cargo, proxy, "a/place")
    _assert_arrived(cargo, upstream, "a/place")


def test_a_blob_that_is_not_there_after_all(
    orlopd: Orlopd, cargo: Cargo, proxy: SpoilingProxy, upstream: str
) -> None:
    """The registry says that it has the layer, and then misses it: its own words are told."""
    proxy.spoil = _always(
        lambda request: request.command == "HEAD" and request.path.endswith(cargo.layer),
        _status(200),
    )
    with pytest.raises(InvalidArgument, match="MANIFEST_BLOB_UNKNOWN") as caught:
        _push(orlopd, cargo, proxy)
    assert cargo.layer in str(caught.value)
    _assert_nothing_stays(orlopd)
    proxy.spoil = lambda _: False
    _push(orlopd, cargo, proxy)
    _assert_arrived(cargo, upstream)


@pytest.mark.parametrize("status", [0, 202, 400, 404, 500])
def test_a_mount_that_is_refused(
    orlopd: Orlopd, cargo: Cargo, proxy: SpoilingProxy, upstream: str, status: int
) -> None:
    _push(orlopd, cargo, proxy, "one/place")
    if status == 202:  # what docker-registry says itself of a blob that is gone
        layer = f"http://{upstream}/v2/one/place/blobs/{cargo.layer}"
        subprocess.run(["curl", "-sfX", "DELETE", layer], check=True, timeout=10)
    elif status:
        proxy.spoil = _first(_mounts, _status(status, "GARBAGE", "as you like"), 9)
    else:
        proxy.spoil = _always(_mounts, lambda request: request.hang_up(0))
    proxy.requests.clear()
    _push(orlopd, cargo, proxy, "another/place")
    assert any("mount=" in path for _, path, _ in proxy.requests)
    _assert_arrived(cargo, upstream, "another/place")
    _assert_nothing_stays(orlopd)


def test_a_session_on_another_host(
    orlopd: Orlopd, cargo: Cargo, proxy: SpoilingProxy, upstream: str
) -> None:
    """The upload goes there; what the first host was told stays with it."""
    with closing(SpoilingProxy(upstream)) as other:

        def move(fields: dict[str, str]) -> None:
            fields["Location"] = fields["Location"].replace(proxy.host, other.host)

        proxy.spoil = _always(_opens, lambda request: request.relay(move))
        _push(orlopd, cargo, proxy)
        _assert_arrived(cargo, upstream)
        assert [command for command, path, _ in other.requests if command == "PUT"]
        assert not [fields for _, _, fields in other.requests if "Authorization" in fields]
    assert not [path for command, path, _ in proxy.requests if command == "PUT" and "blobs" in path]


def test_a_registry_that_forgets_who_we_are(
    orlopd: Orlopd, cargo: Cargo, proxy: SpoilingProxy, upstream: str
) -> None:
    """A token that ends in the middle of a push is asked for again."""
    given = 0
    taken: set[str] = set()

    def guard(request: Passing) -> bool:
        nonlocal given
        if request.path.startswith("/token"):
            given += 1
            return request.answer(200, json.dumps({"token": f"t{given}"}).encode())
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        # Each token is good until the first part of the layer.
        if token and token not in taken and not (_sends(request) and given == 1):
            del request.headers["Authorization"]
            return False
        taken.add(token)
        realm = f'Bearer realm="http://{proxy.host}/token",service="test"'
        return request.answer(401, b"", {"WWW-Authenticate": realm})

    proxy.spoil = guard
    _push(orlopd, cargo, proxy)
    assert given >= 2
    _assert_arrived(cargo, upstream)
