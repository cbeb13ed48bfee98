"""A daemon that serves a registry, and a client that says exactly what a test wants."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import daemon_fixture
from tests.archive_fixture import Files
from tests.daemon_fixture import Orlopd

NAME = "node1.example"  # of the registry that takes pushes


class Answered:
    """A response, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["errors"][0]["code"])


Body = bytes | Iterable[bytes] | None


def ask(
    port: int, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
) -> Answered:
    """One request on a connection of its own; a body in pieces is sent in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        return Answered(connection.getresponse())
    finally:
        connection.close()


class Served:
    """A daemon and its registry; `host` is host:port, which a restart changes."""

    def __init__(self, daemon: Orlopd) -> None:
        self.daemon = daemon

    @property
    def host(self) -> str:
        return str(re.findall(r'as registry \\"([^"\\]+)', self.daemon.log.read_text())[-1])

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    def ask(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        return ask(self.port, method, path, body, headers)

    def upload(self, repository: str, digest: str, data: bytes) -> Answered:
        """Push a blob in one request."""
        return self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)


@contextmanager
def served(folder: Path, settings: str) -> Iterator[Served]:
    """A running daemon with a registry on a free port of loopback, checked at its end."""
    daemon = Orlopd()
    config = folder / f"{daemon.namespace}.toml"
    config.write_text(
        f'[serve]\naddress = "127.0.0.1:0"\nnamespace = "{daemon.namespace}"\n{settings}'
    )
    daemon.options += ["--config", str(config)]
    with contextmanager(daemon_fixture.serving_with)(daemon):
        yield Served(daemon)


def write_layout(folder: Path, files: Files) -> str:
    """Write an OCI layout for skopeo; its name there, without a tag."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return f"oci:{folder}"
