"""Export: images as an OCI layout in a tar that `docker load` reads as well.

The bytes depend on nothing but the images: files sorted by name, no times, no owners, and the modes
that containerd gives them. All that is to be written is looked for before the first byte is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orlop.content import ContentStore
from orlop.errors import DataLoss, InvalidArgument
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.digest import Digest
from orlop.oci.hashing import new_hash
from orlop.rpc import CallContext
from orlop.transfer.archive import encoding, names, tarfiles
from orlop.transfer.archive.intake import DOCKER, INDEX, LAYOUT
from orlop.transfer.archive.selection import Selection
from orlop.transfer.lease import holding
from orlop.transfer.progress import Progress, Report, Throttle

_SOURCE = "containerd.io/distribution.source."
_READ = 1 << 20

Write = Callable[[bytes | memoryview], None]


@dataclass(frozen=True, slots=True)
class Export:
    """The images to write. Of one for several platforms, `platforms` are written, or all."""

    images: Sequence[str]
    platforms: Sequence[Platform]
    all_platforms: bool = False
    docker_manifest: bool = True
    skip_non_distributable: bool = False


@dataclass(slots=True)
class _DockerImage:
    """An entry of docker's `manifest.json`."""

    config: str
    layers: list[str]
    tags: list[str] = field(default_factory=list)

    def members(self) -> dict[str, Any]:
        return {"Config": self.config, "RepoTags": self.tags or None, "Layers": self.layers}


class Exporter:
    """Writes images as archives; usable by many calls at once."""

    def __init__(self, content: ContentStore, images: ImageStore, leases: LeaseStore) -> None:
        self._content = content
        self._images = images
        self._leases = leases

    def run(
        self,
        namespace: str,
        wanted: Export,
        write: Write,
        ctx: CallContext,
        report: Report = lambda _: None,
    ) -> None:
        """Give the archive to `write`, piece by piece.

        Raises NotFound, before anything is written, for an unknown image, a platform that it does
        not have, and content that is not here; DataLoss for a blob that is damaged.
        """
        if not wanted.images:
            raise InvalidArgument("no image to export")
        tell = Throttle(report)
        tell(Progress("Exporting"))
        with holding(self._leases, namespace, ctx.lease) as lease:
            selection = Selection(
                self._content,
                namespace,
                lease,
                [] if wanted.all_platforms else wanted.platforms,
                skip_non_distributable=wanted.skip_non_distributable,
            )
            targets = [self._target(namespace, name) for name in wanted.images]
            documents = self._documents(targets, selection, wanted)
            writer = _Writer(self._content, namespace, write, ctx, tell)
            writer.run(documents, selection.blobs)
        tell(Progress("Completed export"))

    def _target(self, namespace: str, name: str) -> Descriptor:
        """What an image stands for, with what names it in the archive and says where it is from."""
        target = self._images.get(namespace, name).target
        own = self._content.info(namespace, target.digest).labels
        sources = {key: value for key, value in own.items() if key.startswith(_SOURCE)}
        annotations = {**target.annotations, **names.named(name), **sources}
        return msgspec.structs.replace(target, annotations=annotations)

    @staticmethod
    def _documents(
        targets: Sequence[Descriptor], selection: Selection, wanted: Export
    ) -> dict[str, bytes]:
        images: dict[str, _DockerImage] = {}
        for target in targets:
            found = selection.add(target)
            if found is None:
                continue
            image = images.setdefault(
                found.digest,
                _DockerImage(_path(found.config), [_path(layer) for layer in found.layers]),
            )
            if tag := names.to_docker(target.annotations[names.FULL_NAME]):
                image.tags.append(tag)
        documents = {
            LAYOUT: encoding.compact({"imageLayoutVersion": "1.0.0"}),
            INDEX: encoding.index(list(targets)),
        }
        if wanted.docker_manifest and images:
            documents[DOCKER] = encoding.compact([each.members() for each in images.values()])
        return documents


class _Writer:
    """Writes one archive."""

    def __init__(
        self, content: ContentStore, namespace: str, write: Write, ctx: CallContext, tell: Report
    ) -> None:
        self._content = content
        self._namespace = namespace
        self._write = write
        self._ctx = ctx
        self._tell = tell

    def run(self, documents: dict[str, bytes], blobs: dict[str, int]) -> None:
        """Write `documents` by name and `blobs`, digests with their sizes."""
        by_path = {_path(digest): (digest, size) for digest, size in blobs.items()}
        folders = {"blobs/", *(path.rpartition("/")[0] + "/" for path in by_path)}
        for path in sorted({*documents, *by_path, *folders}):
            self._ctx.check()
            if path in folders:
                self._write(tarfiles.folder(path))
                continue
            if path in documents:
                data = documents[path]
                mode = tarfiles.READ_ONLY if path == LAYOUT else tarfiles.ORDINARY
                self._write(tarfiles.file(path, len(data), mode) + data)
                self._write(tarfiles.padding(len(data)))
                continue
            digest, size = by_path[path]
            self._write(tarfiles.file(path, size, tarfiles.READ_ONLY))
            for piece in self._blob(digest, size):
                self._write(piece)
            self._write(tarfiles.padding(size))
        self._write(tarfiles.END)

    def _blob(self, digest: str, size: int) -> Iterator[bytes]:
        state, done = new_hash(Digest(digest).algorithm), 0
        with self._content.open(self._namespace, digest) as blob:
            while done < size and (piece := os.pread(blob.fd, min(_READ, size - done), done)):
                self._ctx.check()
                state.update(piece)
                done += len(piece)
                yield piece
                self._tell(Progress("exporting", f"blob-{digest}", done, size, digest))
        if Digest.from_hash(state) != digest:
            raise DataLoss(f'content "{digest}" is damaged; remove it and pull its image again')


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"
