"""A registry in this process, over stores of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orlop.content import ContentStore
from orlop.errors import AlreadyExists
from orlop.events import Exchange
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.metadata import Database
from orlop.oci.descriptor import Descriptor
from orlop.origin import Origin, Settings, Tls
from orlop.web import Limits
from tests.archive_fixture import CONFIG, MANIFEST, Files, digest_of
from tests.served_fixture import Answered, Body, ask

NAMESPACE = "shown"
NAME = "node1.example"


class Node:
    """Stores, and the registry that shows them. `start` again is what a restart does."""

    def __init__(
        self,
        folder: Path,
        *,
        push: bool = False,
        blob_max: int = 1 << 20,
        name: str = NAME,
        port: int = 0,
        tls: Tls | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._folder = folder
        self._settings = Settings("127.0.0.1", port, NAMESPACE, name, push, blob_max, tls, limits)
        self.start()

    def start(self) -> None:
        self.database = Database(self._folder / "meta.db")
        self.content = ContentStore(self.database, self._folder / "content", Exchange())
        self.images = ImageStore(self.database, Exchange())
        self.leases = LeaseStore(self.database)
        self.content.reap()
        self.origin = Origin(self._settings, self.content, self.images, self.leases)
        self.origin.start()

    def close(self) -> None:
        self.origin.close()
        self.database.close()

    @property
    def port(self) -> int:
        return int(self.origin.address.rpartition(":")[2])

    def ask(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> Answered:
        return ask(self.port, method, path, body, headers)

    # What the node has

    def store(self, files: Files) -> None:
        """Put the blobs of a layout into the content store."""
        for data in files.values():
            try:
                with self.content.writer(NAMESPACE, "t", expected=digest_of(data)) as writer:
                    writer.write(data)
                    writer.commit()
            except AlreadyExists:
                pass

    def image(self, name: str, target: Mapping[str, Any]) -> None:
        self.images.put(
            NAMESPACE, Image(name, Descriptor(media_type=target["mediaType"],
                digest=target["digest"], size=target["size"])),
        )  # fmt: skip

    # What is pushed

    def push_blob(self, repository: str, data: bytes) -> dict[str, Any]:
        done = self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}", data)
        assert done.status == 201, done.body
        return {"mediaType": CONFIG, "digest": digest_of(data), "size": len(data)}

    def put(self, repository: str, what: str, document: Any, kind: str = MANIFEST) -> Answered:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        path = f"/v2/{repository}/manifests/{what}"
        return self.ask("PUT", path, data, {"Content-Type": kind})


Starting = Callable[..., Node]
