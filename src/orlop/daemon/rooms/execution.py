"""The rooms that run containers: shims, sandboxes, tasks."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.daemon.rooms.ground import Ground
from orlop.daemon.rooms.networking import Networking
from orlop.daemon.rooms.storage import Storage
from orlop.diff.folders import FolderStore
from orlop.introspection.service import API_VERSION
from orlop.network.own_files import OwnFiles
from orlop.network.plan import Planner
from orlop.runtime import Bundles, Shims, TaskManager
from orlop.runtime.binary import BinaryShims
from orlop.runtime.checkpoints import Checkpoints
from orlop.runtime.forked import ForkedShims
from orlop.runtime.moves import CgroupMoves, own_procs
from orlop.runtime.recovery import recover
from orlop.runtime.sandboxes import FOLDER as SANDBOXES
from orlop.runtime.sandboxes import SandboxManager


@dataclass(frozen=True, slots=True)
class Execution:
    shims: Shims
    sandboxes: SandboxManager
    bundles: Bundles
    tasks: TaskManager
    own_files: OwnFiles

    def recover(self, ground: Ground) -> None:
        """Find the shims of an earlier daemon; what they have kept, they send now."""
        self.sandboxes.recover()
        recover(self.tasks, ground.reactor)


def make(ground: Ground, storage: Storage, networking: Networking) -> Execution:
    closing, reactor, exchange = ground.closing, ground.reactor, ground.exchange
    shims = _shims(ground)
    sandboxes = SandboxManager(
        Bundles(ground.state, ground.root, SANDBOXES), shims, exchange, reactor
    )
    closing.callback(sandboxes.close)
    bundles = Bundles(ground.state, ground.root)
    own_files = OwnFiles(bundles.folder, networking.connections)
    networking.connections.moved = own_files.follow
    moves = CgroupMoves(own_procs)
    closing.callback(moves.close)
    tasks = TaskManager(
        bundles,
        shims,
        storage.containers,
        exchange,
        reactor,
        Checkpoints(storage.containers, FolderStore(storage.content, ground.forks)),
        moves,
        storage.mounts,
        ground.forks,
        sandboxes.bundle,
        Planner(networking.connections, own_files, unusable=networking.unusable),
    )
    closing.callback(tasks.close)
    return Execution(shims, sandboxes, bundles, tasks, own_files)


def _shims(ground: Ground) -> Shims:
    config, debug = ground.config, ground.config.log.level == "debug"
    own = ForkedShims(ground.forks, ground.state / "s", config.ttrpc_address, debug=debug)
    return Shims(
        ground.reactor,
        own,
        lambda path: BinaryShims(path, config.address, API_VERSION, debug=debug),
        config.runtimes,
    )
