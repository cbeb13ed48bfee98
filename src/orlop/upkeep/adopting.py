"""A containerd root becomes part of ours: blobs, images, leases, labels of all its namespaces."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from orlop import typed
from orlop.content import ContentStore
from orlop.errors import AlreadyExists, OrlopError
from orlop.fork.worker import Spawner, Worker
from orlop.gc.expiry import EXPIRE
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.leases.model import Resource
from orlop.leases.store import LeaseStore
from orlop.namespaces.model import Namespace
from orlop.namespaces.store import NamespaceStore
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.upkeep import containerd
from orlop.upkeep.bringing import linked, marked
from orlop.upkeep.moving import Moved

_JOB = "orlop.upkeep.moving:job"
_HOLD = 24 * 3600  # seconds after which what an adoption that broke off has brought is garbage

_log = logging.getLogger(__name__)


class Adopted(NamedTuple):
    """A record that was taken, or, with `problem`, one that was not."""

    kind: str
    namespace: str
    name: str
    how: str = ""
    size: int = 0
    problem: str = ""


Tell = Callable[[Adopted], None]


class Adopter:
    """Takes what other roots hold. What is here already is left as it is, so it may be repeated."""

    def __init__(
        self,
        forks: Spawner,
        content: ContentStore,
        images: ImageStore,
        leases: LeaseStore,
        namespaces: NamespaceStore,
    ) -> None:
        self._forks = forks
        self._content = content
        self._images = images
        self._leases = leases
        self._namespaces = namespaces

    def adopt(self, source: Path, ctx: CallContext, tell: Tell) -> None:
        """Take all of the containerd root `source`; tell of each record.

        Raises InvalidArgument for what is no such root, FailedPrecondition while a containerd uses
        it, DataLoss when its database is damaged, ResourceExhausted on a full disk.
        """
        files = self._content.files
        adoption = _Adoption(self, tell)
        with marked(files.trash) as target:
            args = {"source": str(source), "target": target, "known": str(files.blobs)}
            with Worker(self._forks, _JOB, args, name="orlop-adopt") as worker:
                ctx.on_cancel(worker.cancel)
                try:
                    worker.result(adoption.hear)
                finally:
                    adoption.end()
                    ctx.check()
        _log.info('adopted containerd root "%s"', source)


class _Adoption:
    """One adoption: its leases hold what came, until what needs it is there as well."""

    def __init__(self, adopter: Adopter, tell: Tell) -> None:
        self._content = adopter._content
        self._images = adopter._images
        self._leases = adopter._leases
        self._namespaces = adopter._namespaces
        self._tell = tell
        self._namespace = ""
        self._lease = f"adopt-{secrets.token_hex(8)}"
        self._leased: list[str] = []
        self._moved: dict[str, Moved] = {}
        self._brought: set[str] = set()  # which another namespace has for nothing

    def hear(self, message: dict[str, Any]) -> None:
        """Take what the worker reports."""
        match message:
            case {"namespace": name, "labels": own}:
                self._enter(name, own)
            case {"moved": moved}:
                told = typed.convert(moved, Moved)
                self._moved[told.digest] = told
            case {"blob": blob}:
                self._take("blob", blob["digest"], lambda: self._blob(blob))
            case {"image": image}:
                self._take("image", image["name"], lambda: self._image(image))
            case {"lease": lease}:
                self._take("lease", lease["id"], lambda: self._add_lease(lease))
            case {"container": id}:
                problem = "containers are not taken: make it anew from its image"
                self._tell(Adopted("container", self._namespace, id, problem=problem))

    def end(self) -> None:
        """Let go: from now on only images and leases hold what came."""
        for namespace in self._leased:
            with suppress(OrlopError):
                self._leases.delete(namespace, self._lease)

    def _take(self, kind: str, name: str, do: Callable[[], Adopted | None]) -> None:
        try:
            taken = do()
        except OrlopError as error:
            taken = Adopted(kind, self._namespace, name, problem=error.message)
        if taken is not None:
            self._tell(taken)

    def _enter(self, name: str, own_labels: dict[str, str]) -> None:
        before = self._namespaces.labels(name)
        self._namespaces.update(Namespace(name, {**own_labels, **before}))
        end = datetime.fromtimestamp(time.time() + _HOLD, UTC).isoformat(timespec="seconds")
        self._leases.create(name, self._lease, {EXPIRE: end.replace("+00:00", "Z")})
        self._namespace = name
        self._leased.append(name)

    def _blob(self, wire: dict[str, Any]) -> Adopted | None:
        blob = typed.convert(wire, containerd.Blob)
        moved = self._moved[blob.digest]
        if moved.problem:
            return Adopted("blob", self._namespace, blob.digest, problem=moved.problem)
        data = Path(moved.path) if moved.path else None
        ours = moved.how != linked.__name__
        if not self._content.take(
            self._namespace, blob.digest, data, blob.labels, self._lease, ours=ours
        ):
            return None
        how, size = (moved.how, moved.size) if blob.digest not in self._brought else ("", 0)
        self._brought.add(blob.digest)
        return Adopted("blob", self._namespace, blob.digest, how or "shared", size)

    def _image(self, wire: dict[str, Any]) -> Adopted | None:
        found = typed.convert(wire, containerd.Image)
        target = Descriptor(
            media_type=found.media_type,
            digest=found.digest,
            size=found.size,
            annotations=found.annotations,
        )
        image = Image(name=found.name, target=target, labels=found.labels)
        try:
            self._images.create(self._namespace, image)
        except AlreadyExists:
            if self._images.get(self._namespace, found.name).target.digest == found.digest:
                return None
            raise AlreadyExists(f'image "{found.name}" is another one here, and stays') from None
        return Adopted("image", self._namespace, found.name)

    def _add_lease(self, wire: dict[str, Any]) -> Adopted | None:
        found = typed.convert(wire, containerd.Lease)
        resources = [Resource(kind, name) for kind, name in found.resources]
        try:
            self._leases.create(self._namespace, found.id, found.labels, resources)
        except AlreadyExists:  # by another root, say: it holds what is of either
            held = self._leases.resources(self._namespace, found.id)
            resources = [each for each in resources if each not in held]
            for each in resources:
                self._leases.add_resource(self._namespace, found.id, each)
            if not resources:
                return None
        return Adopted("lease", self._namespace, found.id)
