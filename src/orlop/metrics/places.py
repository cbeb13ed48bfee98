"""Where a container's cgroup is, by its first process."""

from __future__ import annotations

from orlop.shim.cgroup import Cgroup, of_process


def cgroup_of(pid: int, container: str) -> Cgroup:
    """The container's cgroup, where its first process may have made others below.

    Raises ProcessLookupError when that has ended.
    """
    found = of_process(pid)
    if found.unified is not None:
        return Cgroup(unified=_cut(found.unified, container))
    if not found.controllers:
        raise ProcessLookupError
    return Cgroup(
        controllers={key: _cut(path, container) for key, path in found.controllers.items()}
    )


def _cut(path: str, container: str) -> str:
    """Up to the part that names the container, if one does."""
    if path.endswith(f"/{container}"):
        return path
    parts = path.split("/")
    for number in range(len(parts) - 1, -1, -1):
        if parts[number] == container or parts[number].endswith(f"-{container}.scope"):
            return "/".join(parts[: number + 1])
    return path
