"""The worker that unpacks a layer: confinement first, then bytes.

In a mount namespace of its own the target folder becomes the root of the process, and all else is
unmounted; what privileges remain are those that writing other people's files takes. One thread
inflates and hashes, the other writes; both mostly outside the interpreter lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orlop.diff.confinement import confine, mount_point, mounts_of, private_mounts
from orlop.diff.inflating import Pump, batches
from orlop.errors import OrlopError, ResourceExhausted
from orlop.fork.worker import Report
from orlop.sys import process
from orlop.sys.mount import MS_BIND, mount, mount_all
from orlop.tar.extract import Extractor
from orlop.tar.reader import TarReader

_CAPABILITIES = frozenset(
    {
        process.CAP_CHOWN,
        process.CAP_DAC_OVERRIDE,
        process.CAP_DAC_READ_SEARCH,
        process.CAP_FOWNER,
        process.CAP_FSETID,
        process.CAP_MKNOD,
        process.CAP_SETFCAP,
        process.CAP_SYS_ADMIN,  # for trusted.overlay.* attributes
    }
)


def unpack(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """The job (see `orlop.fork.worker`): unpack the layer that descriptor 0 of `fds` gives.

    `args`: `folder`, or `mounts` to be made where nobody else sees them; `overlay`, and the limits
    `max_size`, `max_ratio`, `max_zeros`, `max_entries`. Answers the `diff_id` and `size` of the
    plain tar and the number of `entries`; folders that the layer implies without containing are
    reported in batches, `{"implicit": […]}`.
    """
    (source,) = fds
    _confine(args)
    pump = Pump(source, args["max_size"], args["max_ratio"], args["max_zeros"])
    extractor = Extractor(overlay=args["overlay"], max_entries=args["max_entries"])
    try:
        reader = TarReader(pump.read, max_holes=args["max_zeros"])
        extractor.apply(reader)
        reader.drain()
    except OrlopError:
        pump.stop()
        raise
    except MemoryError:
        raise ResourceExhausted("layer has more names than fit in memory") from None
    for batch in batches(extractor.implicit):
        report({"implicit": batch})
    return {"diff_id": pump.digest(), "size": pump.size, "entries": extractor.entries}


def _confine(args: dict[str, Any]) -> None:
    private_mounts()
    if args.get("folder"):
        target = Path(args["folder"])
        mount(str(target), target, "", MS_BIND)
    else:
        target = mount_point()
        mount_all(mounts_of(args["mounts"]), target)
    confine(target, _CAPABILITIES)
