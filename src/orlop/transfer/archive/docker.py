"""What `docker save` writes: a `manifest.json` that names configs, tags and layers by file.

From it come the manifests and the index that an OCI layout would have had, the same ones that
containerd makes of such an archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from isal import isal_zlib

from orlop import typed
from orlop.diff.decompress import GZIP_MAGIC, ZSTD_MAGIC
from orlop.errors import InvalidArgument
from orlop.oci import manifest as documents
from orlop.oci import mediatypes, platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.transfer.archive import encoding, names
from orlop.transfer.archive.files import File, StoredFile
from orlop.transfer.archive.intake import DOCKER, Intake
from orlop.transfer.archive.stored import StoredParts

_UNCOMPRESSED = "containerd.io/uncompressed"
_GZIP, _ZSTD = f"{mediatypes.DOCKER_LAYER}.gzip", f"{mediatypes.DOCKER_LAYER}.zstd"
_READ = 1 << 20
_LEVEL = 2


class _Entry(msgspec.Struct, frozen=True, rename="pascal"):
    """One image in a `manifest.json`."""

    config: str
    layers: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


class DockerArchive:
    """The images of a docker archive. `compress` compresses layers that are not."""

    def __init__(self, intake: Intake, parts: StoredParts, *, compress: bool) -> None:
        self._intake = intake
        self._parts = parts
        self._compress = compress
        self._layers: dict[str, Descriptor] = {}

    def index(self) -> bytes:
        """The index of all images, whose manifests are put into the store.

        Raises InvalidArgument for a malformed `manifest.json`, NotFound for a file that it names
        and the archive does not have.
        """
        try:
            entries = typed.decode(self._intake.documents[DOCKER], list[_Entry])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(f'"{DOCKER}" does not parse: {error}') from None
        return encoding.index([each for entry in entries for each in self._images(entry)])

    def _images(self, entry: _Entry) -> Iterator[Descriptor]:
        """A descriptor for each name of an image; one without a name where it has none."""
        manifest = self._manifest(entry)
        if not entry.repo_tags:
            yield manifest
        for tag in entry.repo_tags or ():
            annotations = names.named(names.from_docker(tag))
            yield msgspec.structs.replace(manifest, annotations=annotations)

    def _manifest(self, entry: _Entry) -> Descriptor:
        files = entry.layers or ()
        documents.check_layers(len(files))
        config = _kept(self._intake.find(entry.config), mediatypes.DOCKER_CONFIG)
        layers = [self._layer(self._intake.find(name)) for name in files]
        found = documents.parse_config(self._parts.document(config))
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": mediatypes.DOCKER_MANIFEST,
            "config": encoding.descriptor(config),
            "layers": [encoding.descriptor(layer) for layer in layers],
        }
        manifest = self._parts.put_document(encoding.compact(document), mediatypes.DOCKER_MANIFEST)
        where: Platform | None = platform.normalize(found.platform) if found.os else None
        return msgspec.structs.replace(manifest, platform=where)

    def _layer(self, file: File) -> Descriptor:
        """The layer in a file, which many images may share."""
        if file.digest not in self._layers:
            self._layers[file.digest] = self._described(file)
        return self._layers[file.digest]

    def _described(self, file: File) -> Descriptor:
        kind = _kind(file)
        if kind != mediatypes.DOCKER_LAYER:
            return _kept(file, kind)
        known = self._compressed_before(file)
        if known is not None:
            return known
        return self._compressed(file) if self._compress else _kept(file, kind)

    def _compressed_before(self, plain: File) -> Descriptor | None:
        """The layer as it was pulled, or compressed by an import before."""
        found = self._parts.content.list(
            self._parts.namespace, [f'labels."{_UNCOMPRESSED}"=={plain.digest}']
        )
        for info in sorted(found, key=lambda info: info.digest):
            layer = Descriptor(media_type="", digest=info.digest, size=info.size)
            if info.digest != plain.digest and self._parts.has(layer):
                kind = _kind(StoredFile(self._parts, info.digest, info.size))
                return msgspec.structs.replace(layer, media_type=kind)
        return None

    def _compressed(self, plain: File) -> Descriptor:
        digest = self._parts.put(_gzip(plain), labels={_UNCOMPRESSED: plain.digest})
        size = self._parts.content.info(self._parts.namespace, digest).size
        return Descriptor(media_type=_GZIP, digest=digest, size=size)


def _kind(layer: File) -> str:
    """The media type of a layer, by its first bytes."""
    head = layer.read(len(ZSTD_MAGIC), 0)
    if head.startswith(GZIP_MAGIC):
        return _GZIP
    return _ZSTD if head == ZSTD_MAGIC else mediatypes.DOCKER_LAYER


def _gzip(plain: File) -> Iterator[bytes]:
    codec = isal_zlib.compressobj(_LEVEL, wbits=16 + 15)
    at = 0
    while data := plain.read(_READ, at):
        at += len(data)
        yield codec.compress(data)
    yield codec.flush()


def _kept(file: File, media_type: str) -> Descriptor:
    file.keep()
    return Descriptor(media_type=media_type, digest=file.digest, size=file.size)
