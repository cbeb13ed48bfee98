"""Files given other owners, for snapshots whose mounts cannot show them: the slow way."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orlop.diff.confinement import confine, mount_point, mounts_of, plain, private_mounts
from orlop.errors import InvalidArgument, ResourceExhausted, Unknown
from orlop.fork.client import ForkServer
from orlop.fork.worker import Report, Worker
from orlop.sys import process
from orlop.sys.idmap import IdMapping
from orlop.sys.limits import use_all_descriptors
from orlop.sys.mount import Mount, mount_all
from orlop.sys.owners import change_owners

_CHANGE, _PROBE = "orlop.diff.owners:change", "orlop.diff.owners:probe"
_NAME = "orlop-chown"
_CAPABILITIES = frozenset(
    {
        process.CAP_CHOWN,
        process.CAP_DAC_OVERRIDE,
        process.CAP_DAC_READ_SEARCH,
        process.CAP_FOWNER,
        process.CAP_FSETID,
        process.CAP_SETFCAP,
        process.CAP_SYS_ADMIN,  # for trusted.overlay.* attributes
    }
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Owners:
    """A worker gives away the files that mounts show."""

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks

    def __call__(self, mounts: Sequence[Mount], mapping: IdMapping) -> None:
        """Map the owners of all files, and keep all else of them.

        Raises InvalidArgument for one that is not mapped, ResourceExhausted on a full disk.
        """
        args = {"mounts": plain(mounts), "ids": mapping.options}
        with Worker(self._forks, _CHANGE, args, [], name=_NAME) as worker:
            worker.result()

    def can_be_shown(self, folder: Path) -> bool:
        """Whether a folder's filesystem can be mounted with mapped ids, so that this is no use."""
        with Worker(self._forks, _PROBE, {"folder": str(folder)}, [], name=_NAME) as worker:
            return bool(worker.result()["works"])


def change(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """The job (see `orlop.fork.worker`): `mounts` are made, and `ids` mapped of what they show."""
    del fds, report
    mapping, _ = IdMapping.of(args["ids"])
    if mapping is None:
        raise InvalidArgument("no mapping of ids")
    private_mounts()
    use_all_descriptors()
    try:
        root = mount_point()
        mount_all(mounts_of(args["mounts"]), root)
        confine(root, _CAPABILITIES)
        change_owners("/", mapping)
    except OSError as error:
        about = f"owners of a snapshot's files cannot be changed: {error}"
        raise (ResourceExhausted if error.errno in _FULL else Unknown)(about) from error
    return {}


def probe(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """The job: whether `folder` can be mounted with mapped ids."""
    del fds, report
    return {"works": IdMapping("0:1:1", "0:1:1").works_on(args["folder"])}
