"""A shim that is forked before anybody needs it: a create then waits for no fork."""

from __future__ import annotations

import json
import logging
import socket
import threading
from typing import Any

from orlop.errors import Unavailable
from orlop.fork.client import ForkServer

_log = logging.getLogger(__name__)
ENTRY = "orlop.shim.main:run"
NAME = "orlop-spare"


class Spare:
    """Keeps one shim that waits for its orders; it ends with this daemon if none come.

    A thread of its own forks the next one whenever that is wanted; `close` ends it.
    """

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks
        self._lock = threading.Lock()
        self._waiting: tuple[int, socket.socket] | None = None
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="spare-shim", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """This is a good moment to fork one, if there is none."""
        self._wanted.set()

    def give(self, args: dict[str, Any], fd: int) -> int | None:
        """Give the spare shim its orders and its listening socket: its pid, None without one."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        pid, channel = waiting
        with channel:
            try:
                socket.send_fds(channel, [json.dumps(args).encode()], [fd])
            except OSError as error:
                _log.info("spare shim pid=%d is gone: %s", pid, error)
                return None
        return pid

    def close(self) -> None:
        self._closing = True
        self._wanted.set()
        self._thread.join()
        with self._lock:
            if self._waiting is not None:
                self._waiting[1].close()
                self._waiting = None

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing:
                return
            if self._waiting is None:
                try:
                    self._fork()
                except (Unavailable, OSError) as error:
                    _log.warning("no spare shim: %s", error)

    def _fork(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = self._forks.spawn(ENTRY, {}, [theirs.fileno()], name=NAME)
            except BaseException:
                ours.close()
                raise
        with self._lock:
            self._waiting = pid, ours
