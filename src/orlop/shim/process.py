"""One process of a container: its init, or an exec."""

from __future__ import annotations

import time
from typing import Any

from orlop.errors import Unknown
from orlop.shim.children import Children, Exit
from orlop.shim.log import Log
from orlop.shim.loop import Lock, Loop, Promise
from orlop.shim.process_io import ProcessIO
from orlop.shim.rest import Busy, Luggage
from orlop.shim.stdio import Stdio
from orlop.wire.task_types_pb2 import Status

FAILED = 255
"""The exit status of a process that could not be started."""


class Process:
    """A process and its state.

    `lock` is held by whatever changes the state; so an exit that comes while a start is under way
    is told after it. `exited` is resolved once, with the exit. `pid` is 0 until there is one.
    """

    def __init__(self, loop: Loop, id: str, stdio: Stdio, spec: bytes = b"") -> None:
        self.id = id
        self.stdio = stdio
        self.spec = spec
        self.io = ProcessIO(loop, stdio)
        self.pid = 0
        self.status: Status = Status.CREATED
        self.exit: Exit | None = None
        self.exited: Promise[Exit] = Promise(loop)
        self.lock = Lock(loop)

    def freeze(self, luggage: Luggage) -> dict[str, Any]:
        """What `thaw` makes it from again; Busy in the middle of a change."""
        if self.lock.held:
            raise Busy
        stdio = self.stdio
        return {
            "id": self.id,
            "stdio": (stdio.stdin, stdio.stdout, stdio.stderr, stdio.terminal),
            "spec": self.spec,
            "pid": self.pid,
            "status": int(self.status),
            "exit": self.exit and tuple(self.exit),
            "io": self.io.freeze(luggage),
        }

    @classmethod
    def thaw(
        cls, loop: Loop, children: Children, log: Log, luggage: Luggage, state: dict[str, Any]
    ) -> Process:
        self = cls(loop, state["id"], Stdio(*state["stdio"]), state["spec"])
        self.io = ProcessIO.thaw(loop, children, log, luggage, self.stdio, state["io"])
        self.pid = state["pid"]
        self.status = state["status"]
        if state["exit"]:
            self.exit = Exit(*state["exit"])
            self.exited.resolve(self.exit)
        return self

    def end(self, exit: Exit) -> None:
        """The process has ended: let waiters know, and its stdio."""
        self.status = Status.STOPPED
        self.exit = exit
        self.io.exited()
        self.exited.resolve(exit)

    def fail(self) -> None:
        """The process could not be started."""
        self.io.close()
        self.status = Status.STOPPED
        self.exit = Exit(FAILED, time.time_ns())
        self.exited.resolve(self.exit)

    def refuse(self, action: str) -> Unknown:
        """The error of an action that the present state forbids; clients know these texts."""
        state = Status.Name(self.status).lower()
        return Unknown(f"cannot {action} a {state} process")

    def resize(self, width: int, height: int) -> None:
        """Fine for a process without a terminal, as with containerd's shim."""
        if self.status != Status.STOPPED and self.stdio.terminal:
            self.io.resize(width, height)
