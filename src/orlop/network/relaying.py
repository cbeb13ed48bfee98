"""The process that carries connections to [::1] on to containers (`loopback`)."""

from __future__ import annotations

import errno
import json
import os
import selectors
import socket
import sys
from contextlib import suppress
from typing import Any

from orlop.fork.worker import Report
from orlop.sys.limits import use_all_descriptors
from orlop.sys.process import keep_capabilities

_CHUNK = 256 * 1024
_KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""Seconds and tries: a container that has ended says no goodbye."""


def serve(args: dict[str, Any], fds: list[int], report: Report) -> None:
    """Entry of the worker: carry the connections that come on `fds[0]`, until that ends.

    Each is a descriptor with the address and port that it is to reach. One for which there are not
    the means (descriptors, memory) is closed, and the others go on.
    """
    use_all_descriptors()
    keep_capabilities(())
    complaints = Complaints()
    selector = selectors.DefaultSelector()
    channel = socket.socket(fileno=fds[0])
    selector.register(channel, selectors.EVENT_READ)
    while True:
        for key, events in selector.select():
            if key.data is not None:
                key.data.move(key.fileobj, events)
                continue
            data, found, flags, _ = socket.recv_fds(channel, 1024, 1)
            if not data:
                return
            if flags & socket.MSG_CTRUNC:  # the kernel has closed it
                complaints(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            for fd in found:
                try:
                    Pair(selector, socket.socket(fileno=fd), *json.loads(data))
                except OSError as error:
                    complaints(error)


class Complaints:
    """Says why connections are lost, each reason once: they may be many."""

    def __init__(self) -> None:
        self._told: set[int | None] = set()

    def __call__(self, error: OSError) -> None:
        if error.errno in self._told:
            return
        self._told.add(error.errno)
        with suppress(OSError):  # nobody reads the log any more
            sys.stderr.write(f"connections to [::1] are lost: {error.strerror}\n")


class Pair:
    """Two connections: what one of them says is told to the other, also that it says no more.

    Raises OSError where there are not the means for it, and has closed the `client` then.
    """

    def __init__(
        self, selector: selectors.BaseSelector, client: socket.socket, address: str, port: int
    ) -> None:
        self._selector = selector
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            target = socket.socket(family)
        except OSError:
            client.close()
            raise
        self._other = {client: target, target: client}
        self._untold = {client: b"", target: b""}
        self._ended: set[socket.socket] = set()
        self._connecting: socket.socket | None = target
        try:
            self._begin(target, address, port)
        except OSError:
            self._close()
            raise

    def _begin(self, target: socket.socket, address: str, port: int) -> None:
        for each in self._other:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        target.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            target.setsockopt(socket.IPPROTO_TCP, option, value)
        if target.connect_ex((address, port)) in (0, errno.EINPROGRESS):
            self._watch()
        else:
            self._close()

    def move(self, ready: socket.socket, events: int) -> None:
        """Carry what is there; end both when one breaks, or both have ended."""
        if ready not in self._other:
            return  # closed since the selector told of it
        try:
            if ready is self._connecting:
                self._connected(ready)
            if events & selectors.EVENT_WRITE and self._untold[ready]:
                with suppress(BlockingIOError):
                    sent = ready.send(self._untold[ready])
                    self._untold[ready] = self._untold[ready][sent:]
            if events & selectors.EVENT_READ:
                with suppress(BlockingIOError):
                    self._hear(ready)
            if len(self._ended) < len(self._other):
                self._watch()
                return
        except OSError:
            pass
        self._close()

    def _connected(self, target: socket.socket) -> None:
        problem = target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))
        self._connecting = None

    def _hear(self, speaker: socket.socket) -> None:
        """Only when the other one has been told all that was said before."""
        other = self._other[speaker]
        data = speaker.recv(_CHUNK)
        if not data:
            self._ended.add(speaker)
            other.shutdown(socket.SHUT_WR)
            return
        sent = 0
        with suppress(BlockingIOError):
            sent = other.send(data)
        self._untold[other] = data[sent:]

    def _watch(self) -> None:
        for each, other in self._other.items():
            events = 0
            if each is self._connecting or self._untold[each]:
                events |= selectors.EVENT_WRITE
            if not (self._connecting or self._untold[other] or each in self._ended):
                events |= selectors.EVENT_READ
            watched = each in self._selector.get_map()
            if events and watched:
                self._selector.modify(each, events, self)
            elif events:
                self._selector.register(each, events, self)
            elif watched:
                self._selector.unregister(each)

    def _close(self) -> None:
        for each in self._other:
            with suppress(KeyError):
                self._selector.unregister(each)
            each.close()
        self._other = {}
