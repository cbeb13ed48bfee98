"""A shim's process, from the fork to its end."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from orlop.shim import files
from orlop.shim.children import Children
from orlop.shim.container import Host
from orlop.shim.events import Publisher
from orlop.shim.log import Log
from orlop.shim.loop import Loop
from orlop.shim.server import Server
from orlop.shim.service import TaskService

GOODBYE = 2.0
"""Seconds in which the last events must have reached the daemon once it said Shutdown."""


def run(args: dict[str, Any], fds: list[int]) -> int:
    """Serve the Task API on the listening socket `fds[0]` until Shutdown.

    `args`: `namespace`, `id` (of the first container), `bundle`, `ttrpc_address` (where events go),
    `debug`. The socket's file is removed at the end.
    """
    listener = socket.socket(fileno=fds[0])
    listener.set_inheritable(False)
    _settle(args["bundle"])
    log = Log(
        debug=bool(args.get("debug")),
        shim=args["id"],
        namespace=args["namespace"],
        pid=str(os.getpid()),
    )
    loop = Loop(lambda error: log.error(f"unexpected failure: {error!r}"))
    publisher = Publisher(loop, args["ttrpc_address"], args["namespace"], log)
    host = Host(loop, Children(loop), publisher, log, args["namespace"])

    def leave() -> None:
        loop.spawn(_leave(loop, server, publisher))

    service = TaskService(host, leave)
    server = Server(loop, listener, service.find, on_connect=publisher.retry_now)

    def terminate() -> None:
        # A daemon's stop must not end containers: only an unused shim obeys.
        if service.empty:
            leave()

    loop.on_signal(signal.SIGTERM, terminate)
    loop.run()
    return 0


async def _leave(loop: Loop, server: Server, publisher: Publisher) -> None:
    server.stop_accepting()
    await publisher.drain(GOODBYE)
    await server.flush()
    loop.stop()


def _settle(bundle: str) -> None:
    """Make this forked process a daemon of its own."""
    for number in (signal.SIGPIPE, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd, inheritable=True)
    os.close(null)
    _open_log(bundle)
    os.chdir("/")
    _raise_oom_score()


def _open_log(bundle: str) -> None:
    """Standard error becomes the bundle's log fifo, if the daemon made one."""
    try:
        # Read-write, so that neither this open nor a write waits for a daemon that is down.
        log = os.open(f"{bundle}/log", os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return
    os.dup2(log, 2, inheritable=True)
    os.close(log)


def _raise_oom_score() -> None:
    """Die of memory pressure before the daemon, whose score this process has inherited."""
    path = "/proc/self/oom_score_adj"
    try:
        files.write(path, b"%d" % min(int(files.read_text(path)) + 1, 1000))
    except OSError:
        pass
