"""Image archives made by hand, good and bad."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"

Files = dict[str, bytes]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def path_of(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def tar_of(files: Mapping[str, bytes] | Iterable[tuple[str, bytes | tarfile.TarInfo]]) -> bytes:
    """A tar of files, in order; an entry in place of content is a link or worse."""
    out = io.BytesIO()
    items = files.items() if isinstance(files, Mapping) else files
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in items:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def link_to(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[str, tarfile.TarInfo]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return name, entry


def add(
    files: Files, data: bytes, media_type: str, algorithm: str = "sha256", **more: Any
) -> dict[str, Any]:
    """Add a blob; its descriptor."""
    digest = digest_of(data, algorithm)
    files[path_of(digest)] = data
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


def image(files: Files, architecture: str = "amd64", text: str = "hello") -> dict[str, Any]:
    """Add an image of one layer with the file `text`; the descriptor of its manifest."""
    layer = tar_of({"text": text.encode() + architecture.encode()})
    where = {"architecture": architecture, "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer)]}
    config = add(files, json.dumps({**where, "rootfs": rootfs}).encode(), CONFIG)
    packed = add(files, gzip.compress(layer, mtime=0), f"{LAYER}+gzip")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [packed]}
    return add(files, json.dumps(manifest).encode(), MANIFEST, platform=where)


def attestation(files: Files, of: dict[str, Any]) -> dict[str, Any]:
    """Add what BuildKit says of where an image is from; the descriptor of its manifest."""
    where = {"architecture": "unknown", "os": "unknown"}
    said = json.dumps({"subject": [{"digest": of["digest"]}]}).encode()
    rootfs = {"type": "layers", "diff_ids": [digest_of(said)]}
    config = add(files, json.dumps({**where, "config": {}, "rootfs": rootfs}).encode(), CONFIG)
    layer = add(files, said, "application/vnd.in-toto+json")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    notes = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": of["digest"],
    }
    return add(files, json.dumps(manifest).encode(), MANIFEST, platform=where, annotations=notes)


def index(files: Files, *manifests: dict[str, Any]) -> dict[str, Any]:
    """Add an index; its descriptor."""
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    return add(files, json.dumps(document).encode(), INDEX)


def named(descriptor: dict[str, Any], name: str, key: str = REF_NAME) -> dict[str, Any]:
    return {**descriptor, "annotations": {key: name}}


def layout(files: Files, *manifests: dict[str, Any]) -> Files:
    """The files of an OCI layout."""
    return {
        **files,
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(),
    }


def docker(*tags: str, text: str = "hello") -> Files:
    """The files of what an old `docker save` writes."""
    layer = tar_of({"text": text.encode()})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    ).encode()
    name = f"{digest_of(config)[7:]}.json"
    manifest = [{"Config": name, "RepoTags": list(tags) or None, "Layers": ["one/layer.tar"]}]
    return {
        name: config,
        "one/VERSION": b"1.0",
        "one/json": b"{}",
        "one/layer.tar": layer,
        "repositories": b"{}",
        "manifest.json": json.dumps(manifest).encode(),
    }


def single_image(name: str, text: str = "hello") -> bytes:
    """An OCI archive of one small image."""
    files: Files = {}
    return tar_of(layout(files, named(image(files, text=text), name)))
