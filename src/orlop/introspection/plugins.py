"""Records of the daemon's parts, with the names and exports that clients look for.

`root` is what `ctr plugins ls -d` and image mounts show of a snapshotter; `log-uri-schemes` is how
clients know which log drivers a runtime takes; `path` and `policy` tell of the metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from google.protobuf.any_pb2 import Any

from orlop.errors import OrlopError
from orlop.introspection.model import Plugin
from orlop.oci.descriptor import Platform

CONTENT = "io.containerd.content.v1"
DIFFER = "io.containerd.differ.v1"
EVENT = "io.containerd.event.v1"
GC = "io.containerd.gc.v1"
GRPC = "io.containerd.grpc.v1"
LEASE = "io.containerd.lease.v1"
METADATA = "io.containerd.metadata.v1"
MOUNTS = "io.containerd.mount-manager.v1"
SANDBOX_CONTROLLER = "io.containerd.sandbox.controller.v1"
SANDBOX_STORE = "io.containerd.sandbox.store.v1"
RESTART = "io.containerd.monitor.container.v1"
RUNTIME = "io.containerd.runtime.v2"
SNAPSHOTTER = "io.containerd.snapshotter.v1"
STREAMING = "io.containerd.streaming.v1"
TRANSFER = "io.containerd.transfer.v1"
LOGS = "io.orlop.logs.v1"
NETWORK = "io.orlop.network.v1"
REGISTRY = "io.orlop.registry.v1"


def content(root: Path) -> Plugin:
    """The content store, its blobs below `root`."""
    return Plugin(CONTENT, "content", exports={"root": str(root)})


def metadata(path: Path, policy: str) -> Plugin:
    """The metadata database at `path`; `policy` is how namespaces share content."""
    return Plugin(
        METADATA,
        "bolt",
        requires=(CONTENT, EVENT, SNAPSHOTTER),
        exports={"path": str(path), "policy": policy},
    )


def mounts(folder: Path) -> Plugin:
    """What makes mounts that are more than mount(2), below `folder`."""
    return Plugin(MOUNTS, "bolt", requires=(METADATA,), exports={"root": str(folder)})


def snapshotter(
    name: str,
    root: Path,
    platform: Platform,
    *,
    capabilities: tuple[str, ...] = (),
    error: OrlopError | None = None,
) -> Plugin:
    """A snapshotter with its folders below `root`; capabilities are `rebase`, `remap-ids`…"""
    return Plugin(
        SNAPSHOTTER,
        name,
        platforms=(platform,),
        exports={"root": str(root)},
        capabilities=capabilities,
        error=error,
    )


def proxy_snapshotter(
    name: str,
    address: str,
    platform: Platform,
    exports: Mapping[str, str],
    capabilities: tuple[str, ...],
) -> Plugin:
    """A snapshotter of somebody else, who serves it at `address`; the operator says what it can."""
    return Plugin(
        SNAPSHOTTER,
        name,
        platforms=(platform,),
        exports={"address": address, **exports},
        capabilities=capabilities,
    )


def differ(platform: Platform) -> Plugin:
    """What applies layers."""
    return Plugin(DIFFER, "walking", requires=(METADATA,), platforms=(platform,))


def task_runtime(
    platform: Platform,
    log_schemes: tuple[str, ...],
    *,
    bundles: Path,
    shared: Iterable[str],
    snapshotter: str,
    info: Callable[[Any], Any] | None = None,
) -> Plugin:
    """What runs containers; `log_schemes` are the URI schemes that their stdio may have.

    The `bundles` have the sockets by which orlop's own clients attach to the containers of the
    runtimes `shared`, whose streams any number of clients may share. `snapshotter` is where these
    clients put the root filesystems of containers, when they are told nothing.
    `info` answers a `containerd.types.RuntimeRequest` with a `RuntimeInfo`.
    """
    return Plugin(
        RUNTIME,
        "task",
        requires=(EVENT, METADATA),
        platforms=(platform,),
        exports={
            "log-uri-schemes": ",".join(log_schemes),
            "bundles": str(bundles),
            "attach-runtimes": ",".join(shared),
            "snapshotter": snapshotter,
        },
        info=info,
    )


def sandbox_store() -> Plugin:
    """The records of sandboxes."""
    return Plugin(SANDBOX_STORE, "local", requires=(METADATA,))


def sandbox_controller() -> Plugin:
    """What runs sandboxes by their shims."""
    return Plugin(SANDBOX_CONTROLLER, "shim", requires=(EVENT, RUNTIME))


def restart(policies: tuple[str, ...]) -> Plugin:
    """What starts containers again; clients refuse policies that are not among its capabilities."""
    return Plugin(RESTART, "restart", requires=(METADATA, RUNTIME), capabilities=policies)


def gc() -> Plugin:
    """What collects garbage."""
    return Plugin(GC, "scheduler", requires=(METADATA,))


def logs(root: Path) -> Plugin:
    """Where orlop's own clients put the logs of detached containers."""
    return Plugin(LOGS, "file", exports={"root": str(root)})


def registry(config_path: str) -> Plugin:
    """What reaches registries; orlop's own clients read the same `hosts.toml` files."""
    return Plugin(REGISTRY, "hosts", exports={"config-path": config_path})


def network(default: str, netns: Path, error: OrlopError | None) -> Plugin:
    """What connects containers; `default` is what orlop's own clients ask for when told nothing.

    Named network namespaces are pinned below `netns`.
    """
    return Plugin(
        NETWORK,
        "bridge",
        requires=(EVENT, METADATA),
        exports={"default": default, "netns": str(netns)},
        error=error,
    )
