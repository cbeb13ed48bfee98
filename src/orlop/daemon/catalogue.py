"""What the introspection service tells of a daemon's parts."""

from __future__ import annotations

from orlop.daemon.rooms.execution import Execution
from orlop.daemon.rooms.ground import Ground
from orlop.daemon.rooms.networking import Networking
from orlop.daemon.rooms.storage import Storage
from orlop.errors import FailedPrecondition
from orlop.introspection import Catalogue, Plugin, plugins
from orlop.oci import platform
from orlop.restart import POLICIES

# The URIs that the built-in shim takes for a container's output.
_LOG_SCHEMES = ("fifo", "binary", "file")


def make(
    ground: Ground, storage: Storage, networking: Networking, execution: Execution
) -> Catalogue:
    config, root, here = ground.config, ground.root, platform.host()
    return Catalogue(
        [
            plugins.content(root / "content"),
            *_snapshotters(ground, storage),
            plugins.metadata(root / "metadata.db", config.content.sharing),
            plugins.mounts(ground.state / "mounts"),
            plugins.differ(here),
            plugins.task_runtime(
                here,
                _LOG_SCHEMES,
                bundles=execution.bundles.folder,
                shared=execution.shims.own_runtimes,
                snapshotter=config.snapshots.default,
            ),
            plugins.sandbox_store(),
            plugins.sandbox_controller(),
            plugins.gc(),
            plugins.restart(POLICIES),
            plugins.logs(root / "logs"),
            plugins.registry(config.registry.config_path),
            _network(ground, networking),
        ]
    )


def _snapshotters(ground: Ground, storage: Storage) -> list[Plugin]:
    here, folder = platform.host(), ground.root / "snapshots"
    others = ground.config.proxy_plugins
    return [
        *(
            plugins.proxy_snapshotter(name, each.address, here, each.exports, each.capabilities)
            for name, each in others.items()
        ),
        *(
            plugins.snapshotter(name, folder / name, here, capabilities=store.capabilities)
            for name, store in storage.snapshotters.items()
        ),
        *(
            plugins.snapshotter(name, folder / name, here, error=error)
            for name, error in storage.broken.items()
        ),
    ]


def _network(ground: Ground, networking: Networking) -> Plugin:
    problem, default = networking.unusable, ground.config.network.default
    return plugins.network(
        "none" if problem and default == "bridge" else default,
        networking.pins.folder,
        FailedPrecondition(problem) if problem else None,
    )
