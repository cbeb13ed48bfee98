"""An orlopd that dies, or whose network worker does, at the N-th step that its network takes.

`python -m tests.integration.network.dying` is orlopd with those steps counted: around each change
of its network's records and each request to the worker, and around each thing that the worker does
to the kernel. What is to die, the number of steps before that, and maybe by which signal other than
SIGKILL, are in the file that DYING_FILE names; without it, all goes on. So a test finds every point
at which something can be left half-done: no kill from outside would.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orlop.fork.worker import Report

VARIABLE = "DYING_FILE"
_lock = threading.Lock()


def step(who: str) -> None:
    """Count one; the one that is to die does so when none are left."""
    file = Path(os.environ[VARIABLE])
    with _lock:
        try:
            whose, left, *how = file.read_text().split()
        except (FileNotFoundError, ValueError):
            return
        if whose != who:
            return
        # Nobody is to die any more once the file is gone, which may be any moment.
        try:
            if int(left) > 0:
                with file.open("r+") as orders:
                    orders.truncate()
                    orders.write(" ".join((whose, str(int(left) - 1), *how)))
                return
            file.unlink()
        except FileNotFoundError:
            return
    os.kill(os.getpid(), signal.Signals[how[0]] if how else signal.SIGKILL)


def _count(who: str, owner: Any, *names: str) -> None:
    """Have these functions be steps."""
    for name in names:
        setattr(owner, name, _counted(who, getattr(owner, name)))


def _counted(who: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        step(who)
        return function(*args, **options)

    return wrapped


class _Netlink:
    """A netlink socket of which each change is a step."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        return _counted("worker", found) if name in _CHANGES else found


_CHANGES = ("link", "addr", "route", "brport")


def worker(args: dict[str, Any], fds: list[int], report: Report) -> None:
    """Entry of the network worker, whose steps are counted."""
    from orlop.network import messages
    from orlop.network import worker as real
    from orlop.network.firewall import xtables
    from orlop.network.firewall.libnftables import Netfilter
    from orlop.network.sockets import Namespaces

    netlink = Namespaces.netlink
    Namespaces.netlink = lambda self, ns: _Netlink(netlink(self, ns))  # type: ignore
    _count("worker", Namespaces, "write_sysctl")
    _count("worker", real.Handler, "_pin")
    _count("worker", Netfilter, "run")
    _count("worker", xtables, "_run")
    _count("worker", messages, "send")
    real.serve(args, fds, report)


def main() -> int:
    from orlop.daemon.main import main as orlopd
    from orlop.network import kernel, namespaces
    from orlop.network.kernel import Kernel
    from orlop.network.store import NetworkStore

    kernel._JOB = "tests.integration.network.dying:worker"
    _count("daemon", Kernel, "apply", "filter", "set_chains", "pin")
    _count("daemon", NetworkStore, "create", "delete", "reserve", "release", "publish")
    _count("daemon", namespaces, "unmount")
    return orlopd()


if __name__ == "__main__":
    sys.exit(main())
