"""A registry in this process that can be made to lie, stall or break off."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.quiet_server import QuietServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Answer = Callable[[BaseHTTPRequestHandler], bool]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """A registry in this process; `spoil` may answer a request in its own way."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.spoil: Answer = lambda _: False
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.answer(self)

            def do_HEAD(self) -> None:
                registry.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
        digest = digest_of(data)
        self.blobs[digest], self.types[digest] = data, media_type
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def image(
        self, layer: bytes | None = None, diff_id: str = "", layer_type: str = LAYER, **changes: Any
    ) -> dict[str, Any]:
        """An image of one layer, tagged `latest`; its layer descriptor."""
        tar = tar_of("hello", b"x" * 100_000)
        packed = gzip.compress(tar) if layer is None else layer
        config = {
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id or digest_of(tar)]},
        }  # fmt: skip
        descriptor = self.put(packed, layer_type)
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self.put(
                json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
            ),
            "layers": [descriptor], **changes,
        }  # fmt: skip
        self.tag(json.dumps(manifest).encode(), MANIFEST)
        return descriptor

    def tag(self, data: bytes, media_type: str) -> None:
        self.tags["latest"] = self.put(data, media_type)["digest"]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.command, request.path, dict(request.headers)))
        if self.spoil(request):
            return
        name = request.path.partition("?")[0].rpartition("/")[2]
        digest = self.tags.get(name, name)
        data = self.blobs.get(digest)
        if data is None:
            send(request, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            return
        start = 0
        if "Range" in request.headers:
            start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Type": self.types[digest], "Docker-Content-Digest": digest}
        send(request, 206 if start else 200, data[start:], headers)


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    cut: int | None = None,
) -> bool:
    """Answer, and then break off after `cut` bytes; True, which says that this is the answer."""
    request.send_response(status)
    for key, value in (headers or {}).items():
        request.send_header(key, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body if cut is None else body[:cut])
    if cut is not None:
        request.close_connection = True
    return True


def tar_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
