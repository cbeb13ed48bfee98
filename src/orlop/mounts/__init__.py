"""Mounts that the daemon makes itself: what a snapshotter asks for and mount(2) alone cannot do.

A mount whose type begins with `format/`, `mkfs/` or `mkdir/`, or is `loop` or `erofs`, is prepared
here (an activation, by name), with all before it; the rest is left to whoever runs the container.
"""

from orlop.mounts.manager import MountManager
from orlop.mounts.model import Activation, Active

__all__ = ["Activation", "Active", "MountManager"]
