"""Layers: apply one to a filesystem.

The bytes of a layer are hostile, so they meet the filesystem in a worker process that sees nothing
but the target folder (`unpack`). `Applier` is the daemon's side.
"""

from orlop.diff.apply import Applier, Limits, Unpacked, start_unpack

__all__ = ["Applier", "Limits", "Unpacked", "start_unpack"]
