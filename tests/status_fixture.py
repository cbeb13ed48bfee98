"""A daemon with a status page, and a small fleet of images and containers to see on it."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from tests import daemon_fixture
from tests.daemon_fixture import Orlopd
from tests.frames import cable
from tests.layered_image import CONFIG, LAYER, MANIFEST
from tests.registry_fixture import run_registry, skopeo_copy
from tests.served_fixture import Answered
from tests.slow_proxy import SlowProxy

HOST = "registry.example"
KIB = 1 << 10


class Page:
    """A daemon that shows its page on a free port of loopback."""

    def __init__(self, daemon: Orlopd) -> None:
        self.daemon = daemon

    @property
    def address(self) -> str:
        said = self.daemon.log.read_text()
        return str(re.findall(r'serving the status page on \\"([^"\\]+)', said)[-1])

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Answered:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, headers=dict(headers or {}))
            return Answered(connection.getresponse())

    def state(self) -> Any:
        answered = self.get("/v1/state")
        assert answered.status == 200, answered.body
        return answered.json()

    def container(self, name: str) -> Any:
        return next(each for each in self.state()["containers"] if each["name"] == name)


@contextmanager
def shown(
    folder: Path, settings: str = "", more: str = "", inside: Sequence[str] = ()
) -> Iterator[Page]:
    """`settings` are those of `[status]`, `more` is other sections, `inside` as with Orlopd."""
    daemon = Orlopd()
    daemon.inside = inside
    config = folder / f"{daemon.namespace}.toml"
    address = "" if "address" in settings else 'address = "127.0.0.1:0"\n'
    config.write_text(f"[status]\n{address}{settings}\n{more}")
    daemon.options += ["--config", str(config)]
    with contextmanager(daemon_fixture.serving_with)(daemon):
        yield Page(daemon)


class Shipyard:
    """Makes images of layers that they may share; `base` is an OCI layout to begin with."""

    def __init__(self, folder: Path, base: Path) -> None:
        self._layout = folder / "shipyard"
        self._blobs = self._layout / "blobs/sha256"
        shutil.copytree(base, self._layout)
        index = json.loads((self._layout / "index.json").read_text())
        manifest = self._read(index["manifests"][0]["digest"])
        self._config = self._read(manifest["config"]["digest"])
        self._layers: dict[str, tuple[dict[str, Any], str]] = {
            "base": (manifest["layers"][0], self._config["rootfs"]["diff_ids"][0])
        }

    def _read(self, digest: str) -> Any:
        return json.loads((self._blobs / digest.partition(":")[2]).read_text())

    def _put(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def _layer(self, name: str, size: int) -> tuple[dict[str, Any], str]:
        """A layer of noise, the same each time for a name; "base" is that of the base."""
        if name not in self._layers:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                entry = tarfile.TarInfo(f"opt/{name}")
                entry.size = size
                tar.addfile(entry, io.BytesIO(random.Random(name).randbytes(size)))
            plain = buffer.getvalue()
            packed = self._put(gzip.compress(plain, 1, mtime=0), LAYER)
            self._layers[name] = (packed, f"sha256:{hashlib.sha256(plain).hexdigest()}")
        return self._layers[name]

    def build(self, layers: Mapping[str, int]) -> dict[str, Any]:
        """An image of layers by name and size in bytes; its descriptor."""
        made = [self._layer(name, size) for name, size in layers.items()]
        rootfs = {"type": "layers", "diff_ids": [diff_id for _, diff_id in made]}
        config = json.dumps({**self._config, "rootfs": rootfs, "history": []}).encode()
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self._put(config, CONFIG), "layers": [layer for layer, _ in made],
        }  # fmt: skip
        return self._put(json.dumps(manifest).encode(), MANIFEST)

    def layout(self, images: Mapping[str, Mapping[str, int]]) -> Path:
        """The layout with these images alone, by name."""
        manifests = [
            {**self.build(layers), "annotations": _names(name)} for name, layers in images.items()
        ]
        index = {"schemaVersion": 2, "manifests": manifests}
        (self._layout / "index.json").write_text(json.dumps(index))
        return self._layout

    def archive(self, images: Mapping[str, Mapping[str, int]]) -> Path:
        path = self._layout.with_suffix(".tar")
        with tarfile.open(path, "w") as tar:
            tar.add(self.layout(images), ".")
        return path


def _names(name: str) -> dict[str, str]:
    return {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }


def events(page: Page, headers: Mapping[str, str] | None = None) -> Generator[Any]:
    """Follow them; the first is None, when the stream is there."""
    with closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)) as connection:
        connection.request("GET", "/v1/events", headers=dict(headers or {}))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.readline() == b"retry: 2000\n"
        yield None
        for line in answer:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


def follow(page: Page, stack: ExitStack) -> bool:
    """Whether there was room; if so, the events are followed until the stack unwinds."""
    following = events(page)
    try:
        next(following)
    except AssertionError:
        return False
    stack.callback(following.close)
    return True


_MIB = 1 << 20
_BASE = {"base": 0, "runtime": 1400 * KIB}
FLEET_IMAGES: Mapping[str, Mapping[str, int]] = {
    "docker.io/library/busybox:latest": {"base": 0},
    f"{HOST}/shop/api:1.9": {**_BASE, "python": 900 * KIB, "api": 250 * KIB},
    f"{HOST}/shop/db:16": {"base": 0, "db": 1900 * KIB, "tuning": 120 * KIB},
    f"{HOST}/shop/mail:0.7": {**_BASE, "python": 900 * KIB, "mail": 420 * KIB},
    f"{HOST}/shop/web:2.4": {**_BASE, "assets": 600 * KIB},
}
COMING = f"{HOST}/shop/search:3"
_COMING_LAYERS = {**_BASE, "engine": 5 * _MIB, "index": 4 * _MIB, "words": 2 * _MIB}
_WAVES = (
    "n=0; while :; do n=$(( (n + 1) % 40 )); k=$(( n < 20 ? n : 40 - n )); i=0; "
    "while [ $i -lt $(( k * 3000 )) ]; do i=$(( i + 1 )); done; sleep 0.4; done"
)
_HOLDS = (
    "n=0; while :; do n=$(( (n + 5) % 47 )); dd if=/dev/zero of=/dev/shm/held bs=1M "
    "count=$(( 10 + n )) 2>/dev/null; sleep 2; done"
)
_BURSTS = "while :; do i=0; while [ $i -lt 30000 ]; do i=$(( i + 1 )); done; sleep 3; done"
_CONTAINERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "api": ("api:1.9", _BURSTS, ("-m", "96m", "--health-cmd", "true", "--health-interval", "20s")),
    "db": ("db:16", _HOLDS, ("-m", "80m")),
    "mail": ("mail:0.7", "sleep 1000", ()),
    "web": ("web:2.4", _WAVES, ("-m", "64m", "--health-cmd", "true", "--health-interval", "2s")),
}


class Fleet:
    """A shop's containers, which do something, and the images that they run."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.url = page.url

    def pull(self) -> subprocess.Popen[bytes]:
        """Begin to pull `COMING`, which takes about a quarter of a minute."""
        return subprocess.Popen(
            self.page.daemon.orlop_command("pull", "--progress", "none", COMING),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def fleet(folder: Path, yard: Shipyard) -> Iterator[Fleet]:
    """The fleet at work; what it is called and does is always the same, for pictures of it."""
    with ExitStack() as stack:
        host = _registry(stack, folder, yard)
        page = stack.enter_context(_named_page(folder, host))
        daemon = page.daemon
        daemon.orlop("load", "-i", str(yard.archive(FLEET_IMAGES)))
        stack.callback(daemon.orlop, "rm", "-f", *_CONTAINERS, "migrate", check=False)
        for name, (image, script, options) in _CONTAINERS.items():
            command = (f"{HOST}/shop/{image}", "sh", "-c", script)
            daemon.orlop("run", "-d", "--name", name, *options, *command)
        migrate = (f"{HOST}/shop/api:1.9", "sh", "-c", "exit 3")
        daemon.orlop("run", "--name", "migrate", *migrate, check=False)
        pids = {row[0]: int(row[1]) for row in _rows(daemon.ctr("task", "ls").stdout)}
        for name, pause in (("web", 0.02), ("api", 0.09)):
            sender = stack.enter_context(cable(pids[name])).command(100_000, 1400, pause)
            sending = stack.enter_context(subprocess.Popen(sender))
            stack.callback(sending.kill)
        yield Fleet(page)


def _rows(text: str) -> Iterator[list[str]]:
    return (line.split() for line in text.splitlines()[1:])


def _registry(stack: ExitStack, folder: Path, yard: Shipyard) -> str:
    """A slow registry with the image that is still to come; its host:port."""
    (folder / "registry").mkdir()
    host = stack.enter_context(run_registry(folder / "registry"))
    layout = yard.layout({"x:1": _COMING_LAYERS})
    skopeo_copy(f"oci:{layout}:1", f"docker://{host}/{COMING.removeprefix(HOST + '/')}")
    return stack.enter_context(closing(SlowProxy(host, 700 * KIB))).host


@contextmanager
def _named_page(folder: Path, registry: str) -> Iterator[Page]:
    """A page of a machine called node1, which finds HOST at another address."""
    hosts = folder / "certs.d" / HOST
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(f'server = "http://{registry}"\n')
    named = ["unshare", "--uts", "sh", "-c", 'hostname node1 && exec "$@"', "named"]
    more = f'[registry]\nconfig_path = "{folder}/certs.d"\n'
    with shown(folder, more=more, inside=named) as page:
        yield page
