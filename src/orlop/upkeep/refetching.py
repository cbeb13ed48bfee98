"""Blobs once more from the registries that they came from, as their labels say."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from orlop import typed
from orlop.content import ContentStore
from orlop.errors import Cancelled, DataLoss, NotFound, OrlopError
from orlop.metadata import Database
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.hashing import new_hash
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.registry import RegistryClient
from orlop.rpc import CallContext
from orlop.transfer.resolver import Resolver
from orlop.upkeep import rows
from orlop.wire import transfer_types_pb2 as types

_DOCUMENTS = mediatypes.INDEXES | mediatypes.MANIFESTS


class _Document(msgspec.Struct, frozen=True):
    """What a manifest or an index refers to."""

    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()

    @property
    def children(self) -> Iterable[Descriptor]:
        return (*filter(None, (self.config,)), *self.layers, *self.manifests)


class Access(NamedTuple):
    """How registries are reached: see `types.RegistryResolver`."""

    namespace: str = ""
    default_scheme: str = ""
    host_dir: str = ""
    auth_stream: str = ""


class Refetcher:
    """Fetches what a check found to be damaged or missing."""

    def __init__(self, database: Database, content: ContentStore, resolver: Resolver) -> None:
        self._database = database
        self._content = content
        self._resolver = resolver

    def replace(self, digest: str, access: Access, ctx: CallContext) -> None:
        """Put good bytes in the place of a blob's; what there was is set aside.

        Raises NotFound where no label says where it came from, and what the registries answer.
        """
        data = self._content.files.scratch()
        try:
            self._fetch(digest, (digest,), data, access, ctx)
            self._content.replace(digest, data)
        finally:
            data.unlink(missing_ok=True)

    def complete(
        self, namespace: str, digest: str, owner: str, access: Access, ctx: CallContext
    ) -> None:
        """Fetch a blob that `owner` consists of, into its namespace. Raises as `replace` does."""
        data = self._content.files.scratch()
        try:
            self._fetch(digest, (digest, owner), data, access, ctx)
            sources = dict(self._sources(owner, digest))
            self._content.take(namespace, digest, data, sources, lease="")
        finally:
            data.unlink(missing_ok=True)

    def _sources(self, *digests: str) -> list[tuple[str, str]]:
        with self._database.read() as tx:
            return [source for each in digests for source in rows.sources(tx, each)]

    def _fetch(
        self, digest: str, known: Iterable[str], data: Path, access: Access, ctx: CallContext
    ) -> None:
        wanted = self._described(digest)
        failures: list[OrlopError] = []
        for host, path in rows.repositories(self._sources(*known)):
            registry = types.OCIRegistry(
                reference=f"{host}/{path}@{digest}",
                resolver=types.RegistryResolver(
                    default_scheme=access.default_scheme,
                    host_dir=access.host_dir,
                    auth_stream=access.auth_stream,
                ),
            )
            try:
                with self._resolver.client(access.namespace, registry, ctx) as client:
                    _download(client, wanted, data, ctx)
            except Cancelled:
                raise
            except OrlopError as error:
                failures.append(error)
            else:
                return
        if failures:
            raise failures[-1]
        raise NotFound("no label says which registry it came from: source")

    def _described(self, digest: str) -> Descriptor:
        """What images and documents say of a blob; else what its record says."""
        with self._database.read() as tx:
            found = rows.target(tx, digest)
            parents = rows.parents_of_blob(tx, digest)
            size = rows.size_of(tx, digest)
        if found is not None:
            return Descriptor(media_type=found[0], digest=digest, size=found[1])
        for namespace, parent, length in parents:
            with suppress(OrlopError, OSError, msgspec.MsgspecError):
                if length <= DOCUMENT_MAX:
                    document = typed.decode(self._content.read(namespace, parent), _Document)
                    for child in document.children:
                        if child.digest == digest:
                            return child
        return Descriptor(media_type="", digest=digest, size=size)


def _download(client: RegistryClient, wanted: Descriptor, data: Path, ctx: CallContext) -> None:
    """The bytes of a blob into a file, verified and synced."""
    state = new_hash(wanted.digest.partition(":")[0])
    with data.open("wb") as file:
        for chunk in _chunks(client, wanted):
            ctx.check()
            state.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    found = f"{wanted.digest.partition(':')[0]}:{state.hexdigest()}"
    if found == wanted.digest:
        return
    if not client.spoiled(wanted):
        raise DataLoss(f'"{client.reference}" has digest {found} in its registry')
    _download(client, wanted, data, ctx)  # from another host


def _chunks(client: RegistryClient, wanted: Descriptor) -> Iterable[bytes]:
    if wanted.media_type in _DOCUMENTS:
        yield client.fetch_document(wanted)
        return
    with closing(client.open_blob(wanted)) as stream:
        yield from stream
