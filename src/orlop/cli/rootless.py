"""The daemon of a user who is not root, and the way into its namespaces (docs/rootless.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SYSTEMS = "/run/orlop/orlop.sock"


def default_address() -> str:
    """$ORLOP_ADDRESS, or the socket of the user's own daemon if there is one, or the system's.

    Root has an own one in that daemon's namespaces alone: elsewhere `sudo` may have kept the
    environment of somebody else.
    """
    if given := os.environ.get("ORLOP_ADDRESS"):
        return given
    own = f"{os.environ.get('XDG_RUNTIME_DIR', '')}/orlop/orlop.sock"
    there = os.path.exists(own)  # noqa: PTH110 - starts fast
    return own if there and (os.geteuid() or _in_user_namespace()) else _SYSTEMS


def _in_user_namespace() -> bool:
    from orlop.sys.process import in_user_namespace  # slow to load, and few need it

    return in_user_namespace()


def enter(address: str) -> None:
    """Become root among the mounts of the user's own daemon, if that is what serves at `address`.

    There a snapshot can be mounted. Raises Unavailable when the kernel refuses.
    """
    holder = _holder(os.path.dirname(address)) if os.geteuid() else None  # noqa: PTH120
    if holder is None:
        return
    from orlop.errors import Unavailable
    from orlop.sys.process import CLONE_NEWCGROUP, CLONE_NEWNS, CLONE_NEWUSER, setns

    try:
        with _working_folder_kept():
            setns(holder, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP)
    except OSError as error:
        whose = f"the orlopd at {address}"
        raise Unavailable(f"cannot join the namespaces of {whose}: {error.strerror}") from None
    finally:
        os.close(holder)


@contextmanager
def _working_folder_kept() -> Iterator[None]:
    """Work where one did: by the name that it has inside, or outside if it has none.

    In no other place, as a relative path would mean another file there.
    """
    folder = os.open("/proc/self/cwd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    path = ""  # if it is deleted
    with suppress(FileNotFoundError):
        path = os.getcwd()  # noqa: PTH109
    try:
        yield
        try:
            os.chdir(path)
        except OSError:
            with suppress(PermissionError):  # as it was outside
                os.fchdir(folder)
    finally:
        os.close(folder)


def _holder(state: str) -> int | None:
    """The process that keeps the namespaces of the daemon whose state is in a folder.

    None if there is none, it is gone, or it is nobody's that we may be.
    """
    try:
        with open(f"{state}/holder") as file:  # noqa: PTH123
            pid, namespace = file.read().split()
        holder = os.pidfd_open(int(pid))
    except (OSError, ValueError, OverflowError):
        return None
    with suppress(OSError):
        if os.readlink(f"/proc/{pid}/ns/user") == namespace:  # noqa: PTH115
            return holder
    os.close(holder)
    return None
