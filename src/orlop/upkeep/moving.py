"""The worker of an adoption: read a containerd root, bring its blobs next to ours, verified."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from orlop.errors import ResourceExhausted
from orlop.fork.worker import Report
from orlop.oci.digest import Digest
from orlop.oci.hashing import new_hash
from orlop.sys.process import be_patient
from orlop.upkeep import containerd
from orlop.upkeep.bringing import bring, cloned, copied, linked

_CHUNK = 1 << 20


class Moved(msgspec.Struct, frozen=True):
    """A blob whose bytes are at `path` now, verified and synced; or `problem`, why they are not."""

    digest: str
    size: int = 0
    path: str = ""
    how: str = ""
    problem: str = ""


def job(args: Mapping[str, Any], fds: list[int], report: Report) -> Any:
    """Entry of a worker: `args` are the `source` root, a `target`, and the folder of blobs `known`.

    `target` is what the paths of all that it makes begin with.
    Reports, one by one, `{"namespace": …}`, `{"image": …}`, `{"lease": …}`, and each blob twice:
    `{"moved": …}` the first time that it comes, before `{"blob": …}`, its record in a namespace.
    """
    be_patient()
    try:
        _report_all(Path(args["source"]), args["target"], args["known"], report)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(f'no space left to adopt "{args["source"]}"') from error
        raise


def _report_all(source: Path, target: str, known: str, report: Report) -> None:
    seen: set[str] = set()
    with containerd.opened(source) as root:
        for namespace in root.namespaces():
            report({"namespace": namespace.name, "labels": namespace.labels})
            for blob in namespace.blobs():
                if blob.digest not in seen:
                    seen.add(blob.digest)
                    moved = _move(root.blob(blob.digest), blob.digest, target, known)
                    report({"moved": msgspec.to_builtins(moved)})
                report({"blob": msgspec.to_builtins(blob)})
            for image in namespace.images():
                report({"image": msgspec.to_builtins(image)})
            for lease in namespace.leases():
                report({"lease": msgspec.to_builtins(lease)})
            for container in namespace.containers():
                report({"container": container})


def _move(source: Path, digest: str, target: str, known: str) -> Moved:
    """Bring one blob to where `target` says, unless the store in `known` has it."""
    path = Path(f"{target}-{secrets.token_hex(8)}")
    try:
        Digest.parse(digest)
        if Path(known).joinpath(*digest.split(":", 1)).exists():
            return Moved(digest)
        how = bring(source, path, (cloned, linked, copied))
        state, size = new_hash(digest.partition(":")[0]), 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                state.update(chunk)
                size += len(chunk)
            os.fsync(file.fileno())
        if state.hexdigest() != digest.partition(":")[2]:
            path.unlink()
            return Moved(digest, problem="its bytes have another digest")
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return Moved(digest, problem=str(error))
    return Moved(digest, size, str(path), how)
