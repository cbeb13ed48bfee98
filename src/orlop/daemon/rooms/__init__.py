"""All rooms of a daemon."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.daemon.rooms import execution, networking, storage, transfers, watchers
from orlop.daemon.rooms.execution import Execution
from orlop.daemon.rooms.ground import Ground
from orlop.daemon.rooms.networking import Networking
from orlop.daemon.rooms.storage import Storage
from orlop.daemon.rooms.transfers import Transfers
from orlop.daemon.rooms.watchers import Watchers


@dataclass(frozen=True, slots=True)
class Rooms:
    ground: Ground
    storage: Storage
    transfers: Transfers
    networking: Networking
    execution: Execution
    watchers: Watchers


def make(ground: Ground) -> Rooms:
    """Each with what it needs, in order; none is at work yet."""
    kept = storage.make(ground)
    moved = transfers.make(ground, kept)
    connected = networking.make(ground, kept.containers)
    run = execution.make(ground, kept, connected)
    return Rooms(ground, kept, moved, connected, run, watchers.make(ground, kept, connected, run))
