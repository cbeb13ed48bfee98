"""An image of several layers in which everything happens that may, to compare unpackers by."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_TIME = 1_600_000_000


class _Tar:
    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, data: bytes = b"", **fields: Any) -> None:
        entry = tarfile.TarInfo(name)
        entry.mtime, entry.mode, entry.size = _TIME + len(name), 0o644, len(data)
        for key, value in fields.items():
            setattr(entry, key, value)
        self.tar.addfile(entry, io.BytesIO(data))

    def folder(self, name: str, mode: int = 0o755, **fields: Any) -> None:
        self.add(name, type=tarfile.DIRTYPE, mode=mode, **fields)

    def bytes(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()


def _layers(size: int) -> list[bytes]:
    noise = random.Random(7)
    base = _Tar()
    for name in ("bin", "etc", "old", "old/deep", "tmp", "var", "var/keep"):
        base.folder(name, mode=0o1777 if name == "tmp" else 0o755)
    base.add("bin/tool", noise.randbytes(5000), mode=0o4755, uid=0, gid=7)
    base.add("bin/twin", type=tarfile.LNKTYPE, linkname="bin/tool")
    base.add("bin/alias", type=tarfile.SYMTYPE, linkname="tool", mode=0o777)
    base.add("etc/conf", b"one", uid=1000, gid=1001)
    base.add("etc/gone", b"two")
    base.add("etc/pipe", type=tarfile.FIFOTYPE)
    base.add("var/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    base.add("var/marked", b"x", pax_headers={"SCHILY.xattr.user.mark": "here"})
    for number in range(20):
        base.add(f"old/deep/{number}", noise.randbytes(300))
    base.add("var/keep/big", noise.randbytes(size))
    change = _Tar()
    change.add("etc/.wh.gone")
    change.add("old/.wh..wh..opq")
    change.folder("old/new", mode=0o700)
    change.add("old/new/file", b"new")
    change.add("etc/conf", b"changed", mode=0o600)
    change.add("bin/tool", noise.randbytes(100), mode=0o755)
    more = [base.bytes(), change.bytes()]
    for number in range(3):
        bulk = _Tar()
        bulk.folder(f"bulk{number}", mode=0o755)
        for part in range(10):
            bulk.add(f"bulk{number}/{part}", noise.randbytes(size // 10))
        more.append(bulk.bytes())
    return more


def build(layout: Path, size: int = 4 << 20) -> Sequence[int]:
    """Write the image as an OCI layout with the tag `latest`; the sizes of its layer blobs.

    About four times `size` bytes in all, which do not compress.
    """
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    plain = _layers(size)
    layers = [put(gzip.compress(each, 1, mtime=0), LAYER) for each in plain]
    diff_ids = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in plain]
    config = {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": put(json.dumps(config).encode(), CONFIG), "layers": layers,
    }  # fmt: skip
    target = put(json.dumps(manifest).encode(), MANIFEST)
    target["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "manifests": [target]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return [each["size"] for each in layers]
