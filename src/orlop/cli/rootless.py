"""The daemon of a user who is not root, and the way into its namespaces (docs/rootless.md)."""

from __future__ import annotations

import os

_SYSTEMS = "/run/orlop/orlop.sock"


def default_address() -> str:
    """$ORLOP_ADDRESS, or the socket of the user's own daemon if there is one, or the system's."""
    if given := os.environ.get("ORLOP_ADDRESS"):
        return given
    own = f"{os.environ.get('XDG_RUNTIME_DIR', '')}/orlop/orlop.sock"
    return own if os.geteuid() and os.path.exists(own) else _SYSTEMS  # noqa: PTH110 - starts fast


def enter(address: str) -> None:
    """Become root among the mounts of the user's own daemon, if that is what serves at `address`.

    There a snapshot can be mounted.
    """
    found = _holder(os.path.dirname(address)) if os.geteuid() else None  # noqa: PTH120
    if found is None:
        return
    from orlop.sys.process import CLONE_NEWCGROUP, CLONE_NEWNS, CLONE_NEWUSER, setns

    here = os.getcwd()  # noqa: PTH109
    setns(found, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP)
    os.close(found)
    os.chdir(here)


def _holder(state: str) -> int | None:
    """The process that keeps the namespaces of the daemon whose state is in a folder."""
    try:
        with open(f"{state}/holder") as file:  # noqa: PTH123
            pid, namespace = file.read().split()
        holder = os.pidfd_open(int(pid))
        if os.readlink(f"/proc/{pid}/ns/user") == namespace:  # noqa: PTH115
            return holder
        os.close(holder)
    except (OSError, ValueError):
        pass  # there is none, or it is gone, or nobody's that we may be
    return None
