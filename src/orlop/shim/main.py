"""A shim's processes, from the fork to their end: a keeper, and a hand while there is work."""

from __future__ import annotations

import json
import marshal
import os
import signal
import socket
import stat
from typing import Any

from orlop.shim import files
from orlop.shim.children import Children
from orlop.shim.events import Publisher
from orlop.shim.host import Host
from orlop.shim.keeper import Awakening, Keeper, Rest, leave, take_name
from orlop.shim.log import STDERR, Log
from orlop.shim.logger import helper
from orlop.shim.loop import Loop
from orlop.shim.rehearsal import rehearse
from orlop.shim.rest import Busy, Luggage
from orlop.shim.runc import NULL
from orlop.shim.server import Server
from orlop.shim.service import TaskService
from orlop.sys import bare

GOODBYE = 2.0
"""Seconds in which the last events must have reached the daemon once it said Shutdown."""
PATIENCE = 1.0
"""Seconds without work after which a hand goes, if nothing is under way."""
MAX_PATIENCE = 60.0
_ORDERS_MAX = 64 * 1024
_UNHEARD = (int(signal.SIGPIPE), int(signal.SIGHUP))


def run(args: dict[str, Any], fds: list[int]) -> int:
    """Serve the Task API on the listening socket `fds[0]` until Shutdown.

    Without `args` it is a spare shim: `fds[0]` is a socket on which its orders will come, `args` as
    JSON and the listening socket; its end ends the shim.

    `args`: `namespace`, `id` (of the first container), `bundle`, `ttrpc_address` (where events go),
    `debug`, `patience` (seconds, see PATIENCE). The socket's file is removed at the end. Standard
    input and output must be /dev/null.
    """
    os.set_inheritable(fds[0], False)
    os.dup2(NULL, STDERR)
    for number in _UNHEARD:
        bare.signal(number, bare.SIG_IGN)
    try:
        return Keeper(lambda start: _work(args, start), helper).run(fds)
    except Exception:
        _open_log(args.get("bundle", ""))  # which the fork server's report goes to
        raise


def _work(args: dict[str, Any], start: Awakening) -> int:
    """Be the hand, of a shim that knows whose it is or has yet to be told."""
    state = marshal.loads(start.state) if start.state else None
    if state:
        args = state["args"]
    elif not args:
        rehearse()
        orders, fds = bare.receive(bare.Socket(fileno=start.fds[0]), _ORDERS_MAX, 1)
        if not orders:
            return 0
        take_name(start.control)
        args, start = json.loads(orders), start._replace(fds=fds)
    return Hand(args, start, state).run()


class Hand:
    """The process that works: made anew from the state that the last one left."""

    def __init__(
        self, args: dict[str, Any], start: Awakening, state: dict[str, Any] | None
    ) -> None:
        self._args = args
        luggage = Luggage(start.fds)
        if state:
            _take_log(luggage.claim(state["log"]))
        else:
            _open_log(args["bundle"])
        if not start.state:
            for pid in (start.keeper, os.getpid()):
                _raise_oom_score(pid)
        log = Log(
            debug=bool(args.get("debug")),
            shim=args["id"],
            namespace=args["namespace"],
            pid=str(start.keeper),
        )
        self._loop = loop = Loop(lambda error: log.error(f"unexpected failure: {error!r}"))
        self._control = start.control
        self._leaving = False
        self._children = Children(loop, start.control, self._terminate)
        self._publisher = Publisher(loop, args["ttrpc_address"], args["namespace"], log)
        host = Host(loop, self._children, self._publisher, log, args["namespace"], start.keeper)
        self._service = TaskService(host, self._leave)
        number = state["server"]["listener"] if state else 0
        listener = socket.socket(fileno=luggage.claim(number))
        self._server = Server(
            loop, listener, self._service.find, on_connect=self._publisher.retry_now
        )
        if state:
            loop.openings.thaw(luggage, state["openings"])
            self._service.thaw(luggage, state["service"])
            self._server.thaw(luggage, state["server"])
        luggage.drop_rest()
        self._children.take_in(start.ended)
        self._patience = float(args.get("patience", PATIENCE))
        loop.when_idle(self._patience, self._rest)

    def run(self) -> int:
        """Work until there is nothing to do for a while, or until Shutdown."""
        self._loop.run()
        return 0

    def _rest(self) -> None:
        """Leave everything to the keeper, or stay for as long again as so far."""
        luggage = Luggage()
        try:
            leave(self._control, self._freeze(luggage))
        except Exception as error:  # noqa: BLE001 - whatever it is, the containers live on
            if not isinstance(error, Busy):
                self._loop.report(error)
            self._patience = min(self._patience * 2, MAX_PATIENCE)
            self._loop.when_idle(self._patience, self._rest)
            return
        os._exit(0)

    def _freeze(self, luggage: Luggage) -> Rest:
        if self._loop.timed or not self._publisher.idle:
            raise Busy
        server = self._server.freeze(luggage)
        service = self._service.freeze(luggage)
        log = luggage.put(STDERR)  # what is in it waits for a daemon, which may be down
        state = {
            "args": self._args,
            "openings": self._loop.openings.freeze(luggage),
            "server": server,
            "service": service,
            "log": log,
        }
        interests = self._loop.interests()
        interests.pop(self._control.fileno(), None)
        watched = {luggage.put(fd): mask for fd, mask in interests.items()}
        children = self._children
        return Rest(marshal.dumps(state), luggage.fds, watched, children.awaited, children.told)

    def _terminate(self) -> None:
        # A daemon's stop must not end containers: only an unused shim obeys.
        if self._service.empty:
            self._leave()

    def _leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._loop.spawn(self._end())

    async def _end(self) -> None:
        try:
            self._server.stop_accepting()
            await self._publisher.drain(GOODBYE)
            await self._server.flush()
        finally:
            self._loop.stop()  # also when a client leaves in the middle of its answer


def _open_log(bundle: str) -> None:
    """Standard error becomes the bundle's log fifo, if the daemon made one."""
    try:
        # Read-write, so that neither this open nor a write waits for a daemon that is down.
        log = os.open(f"{bundle}/log", os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return
    if stat.S_ISFIFO(os.fstat(log).st_mode):
        _take_log(log)
    else:
        os.close(log)


def _take_log(log: int) -> None:
    os.dup2(log, STDERR)
    os.close(log)


def _raise_oom_score(pid: int) -> None:
    """Have a process die of memory pressure before the daemon, whose score it has inherited."""
    path = f"/proc/{pid}/oom_score_adj"
    try:
        files.write(path, b"%d" % min(int(files.read_text(path)) + 1, 1000))
    except OSError:
        pass
