"""Images to pull: a small one from busybox, and a large generated one, pushed to a registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from pathlib import Path
from typing import Any

from isal import igzip

from benchmarks.rivals import run

_SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def push_small(host: str, folder: Path) -> str:
    """Build and push a busybox image; its name."""
    layout, name = folder / "small", f"{host}/bench/small:latest"
    run([str(_SCRIPTS / "make-busybox-image.sh"), str(layout)])
    _push(layout, name)
    return name


def push_large(
    host: str, folder: Path, what: str, *, layers: int, files: int, file_size: int
) -> str:
    """Generate and push an image of `layers` layers with `files` files each; its name.

    A third of each file's bytes do not compress, as in images of programs.
    """
    layout, name = folder / what, f"{host}/bench/{what}:latest"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptors, diff_ids = [], []
    for index in range(layers):
        descriptor, diff_id = _layer(blobs, index, files, file_size)
        descriptors.append(descriptor)
        diff_ids.append(diff_id)
    config = _blob(
        blobs,
        "application/vnd.oci.image.config.v1+json",
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        },
    )
    manifest = _blob(
        blobs,
        "application/vnd.oci.image.manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": descriptors,
        },
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    _push(layout, name)
    return name


def _push(layout: Path, name: str) -> None:
    run(
        ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest",
         f"docker://{name}"]
    )  # fmt: skip


def _layer(blobs: Path, index: int, files: int, file_size: int) -> tuple[dict[str, Any], str]:
    path = blobs / f"layer-{index}"
    source = random.Random(index)
    with path.open("wb") as target:
        plain = _Hashing(target)
        with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for number in range(files):
                _add_file(archive, source, index, number, file_size)
        plain.close()
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    path.rename(blobs / digest)
    descriptor = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": f"sha256:{digest}",
        "size": len(data),
    }
    return descriptor, f"sha256:{plain.digest.hexdigest()}"


class _Hashing(io.RawIOBase):
    """A file that hashes what it is given and writes it compressed."""

    def __init__(self, target: io.BufferedWriter) -> None:
        self.digest = hashlib.sha256()
        opener: Any = igzip.open
        self._gzip = opener(target, "wb", compresslevel=1)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return int(self._gzip.write(data))

    def close(self) -> None:
        if not self._gzip.closed:
            self._gzip.close()
        super().close()


def _add_file(
    archive: tarfile.TarFile, source: random.Random, layer: int, number: int, file_size: int
) -> None:
    size = source.randrange(file_size // 4, file_size * 7 // 4)
    hard = os.urandom(size * 36 // 100)
    data = hard + b"the cargo stands on the lowest deck\n" * ((size - len(hard)) // 36)
    info = tarfile.TarInfo(f"usr/lib/layer{layer}/d{number // 100}/file-{number}.dat")
    info.size, info.mode, info.mtime = len(data), 0o644, 1_600_000_000
    archive.addfile(info, io.BytesIO(data))


def _blob(blobs: Path, media_type: str, document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
