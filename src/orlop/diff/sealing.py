"""Make an EROFS image of what was written to a snapshot: the daemon's side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orlop.diff.apply import Limits, start_index
from orlop.diff.packing import Wanted, packing
from orlop.erofs.folders import SEALED
from orlop.errors import Internal, OrlopError
from orlop.fork.client import ForkServer
from orlop.sys.mount import Mount
from orlop.tar.sides import for_reading, upper_of

# The files are ours already, as large and as many as they are.
_LIMITS = Limits(max_size=1 << 40, max_entries=1 << 31, max_ratio=1 << 40, max_zeros=1 << 41)


class Sealer:
    """One worker packs the changes between two sets of mounts, another makes an image of them."""

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks

    def __call__(self, left: Sequence[Mount], right: Sequence[Mount], folder: Path) -> None:
        """Write the image `SEALED` of what `right` has beyond `left` to `folder`, marked for one.

        Raises ResourceExhausted on a full disk, and what is wrong with a file.
        """
        lower = for_reading(left)
        found = upper_of(left, right)
        if found is not None and self._seal(Wanted([found.mount], lower, found.attributes), folder):
            return
        if not self._seal(Wanted(for_reading(right), lower), folder):
            raise Internal(f'snapshot in "{folder}" cannot be compared with its parent')

    def _seal(self, wanted: Wanted, folder: Path) -> bool:
        """False when the upper folder does not tell all (`orlop.tar.changes.RedirectedError`)."""
        with (
            packing(self._forks, wanted) as (packer, tar),
            start_index(self._forks, tar.fileno(), folder, limits=_LIMITS, name=SEALED) as indexing,
        ):
            tar.close()  # the packer must not wait for a reader that has ended
            try:
                done = indexing.result()
            except OrlopError:
                # Where the tar breaks off, the packer knows why.
                if packer.result().get("redirected"):
                    return False
                raise
            answer = packer.result()
        return bool(answer.get("diff_id") == done.diff_id)
