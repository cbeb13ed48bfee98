"""The registry as a whole: what listens, and what answers."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.content import ContentStore
from orlop.errors import InvalidArgument
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.oci import reference
from orlop.origin.api import Api
from orlop.origin.holds import Holds
from orlop.origin.offers import Offers
from orlop.origin.pushes import Pushes
from orlop.origin.reads import Reads
from orlop.origin.repositories import Repositories
from orlop.origin.uploads import Uploads
from orlop.origin.writes import Writes
from orlop.rpc.context import validate_identifier
from orlop.web import HttpServer, Limits, Tls
from orlop.web.server import listen_tcp


@dataclass(frozen=True, slots=True)
class Settings:
    """`name` is the host of images that are pushed here; "" is `host:port`. Sizes in bytes."""

    host: str
    port: int
    namespace: str
    name: str = ""
    push: bool = False
    blob_max: int = 64 << 30
    tls: Tls | None = None
    limits: Limits | None = None


class Origin:
    """A registry that is served until `close`.

    Raises FailedPrecondition when the address or a certificate cannot be had, InvalidArgument for a
    name that no image can have and for what is no namespace.
    """

    def __init__(
        self, settings: Settings, content: ContentStore, images: ImageStore, leases: LeaseStore
    ) -> None:
        context = settings.tls.context("the registry") if settings.tls else None
        listener = listen_tcp(settings.host, settings.port, "the registry")
        self._server = HttpServer("registry", listener, context, settings.limits)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.address = f"{shown}:{listener.getsockname()[1]}"
        self.name = settings.name or self.address
        self._writes: Writes | None = None
        try:
            self._api = self._make(settings, content, images, leases)
        except BaseException:
            self._server.close()
            raise

    def _make(
        self, settings: Settings, content: ContentStore, images: ImageStore, leases: LeaseStore
    ) -> Api:
        try:
            reference.parse(f"{self.name}/x")
        except InvalidArgument:
            raise InvalidArgument(
                f'registry name "{self.name}" is no host that an image name can begin with, '
                "such as node1:5000 or registry.example"
            ) from None
        namespace = settings.namespace
        validate_identifier("namespace", namespace)
        repositories = Repositories(images, namespace, self.name)
        holds = Holds(leases, content, namespace) if settings.push else None
        offers = Offers(content, repositories, namespace, holds)
        if holds is not None:
            holds.sweep()
            uploads = Uploads(content, holds, namespace, settings.blob_max)
            pushes = Pushes(content, images, holds, namespace)
            self._writes = Writes(repositories, offers, uploads, pushes)
        return Api(Reads(content, offers, repositories, namespace), self._writes)

    def start(self) -> None:
        self._server.start(self._api)

    def close(self) -> None:
        """Break off what goes on, and wait for the threads."""
        self._server.close()
        if self._writes is not None:
            self._writes.close()
