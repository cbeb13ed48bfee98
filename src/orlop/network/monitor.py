"""The process of one watch: hears the kernel tell what changes in a network namespace, and says so.

One loop of one thread. What its reader does not take waits in a queue of limited length; when that
is full, what comes is dropped, and once the reader has caught up it is told so, and all that is
there then. The kernel does not tell which routes go with an address or an interface: those are
found by looking.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from orlop.errors import InvalidArgument, NotFound
from orlop.fork.worker import Report
from orlop.network import failures, looking, messages
from orlop.network.model import Change
from orlop.network.operations import Route
from orlop.network.sockets import Namespaces
from orlop.network.worker import CAPABILITIES
from orlop.sys.process import keep_capabilities

QUEUE = 1024
_LINKS, _ADDRESSES4, _ROUTES4, _ADDRESSES6, _ROUTES6 = 0x1, 0x10, 0x40, 0x100, 0x400
_GROUPS = _LINKS | _ADDRESSES4 | _ROUTES4 | _ADDRESSES6 | _ROUTES6
_ROOM = 1 << 20
_MESSAGE = 1 << 16
_AT_ONCE = 64
_OF_PROCESS = re.compile(r"/proc/(\d+)/ns/net")
_encode = msgspec.json.Encoder().encode


def serve(args: dict[str, Any], fds: list[int], report: Report) -> None:
    """Entry of the worker: tell on the stream `fds[0]` what changes in the namespace `args["ns"]`.

    It ends with its reader, or with the namespace, whose name in words is `args["about"]`.
    """
    keep_capabilities(CAPABILITIES)
    with socket.socket(fileno=fds[0]) as channel:
        try:
            Monitor(channel, args["ns"], args["about"]).run()
        except OSError as error:
            number = error.errno or errno.EIO
            raise failures.error(f"watch {args['about']}", args["ns"], number) from None


class Monitor:
    """A watch of the namespace `ns`. Raises OSError if it is not there."""

    def __init__(self, channel: socket.socket, ns: str, about: str) -> None:
        self._channel = channel
        self._ns = ns
        self._about = about
        self._namespaces = Namespaces()
        self._marshal = MarshalRtnl()
        self._end = _End(ns, self._namespaces)
        self._socket = self._listen()
        self._waiting: deque[bytes] = deque()
        self._names: dict[int, str] = {}
        self._routes: set[Route] = set()
        self._lost = False
        self._behind = False

    def _listen(self) -> socket.socket:
        with self._namespaces.inside(self._ns):
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        made.setblocking(False)
        made.bind((0, _GROUPS))
        return made

    def run(self) -> None:
        """Until the reader goes, or the namespace has been gone and that is told."""
        self._channel.setblocking(False)
        self._tell_all()
        ended = False
        while not ended or self._waiting:
            ready = self._wait(ended=ended)
            if self._channel.fileno() in ready and not self._is_read(ready):
                return
            if not ended and self._end.has_come(ready):
                self._farewell()
                ended = True
            elif not ended:
                if self._socket.fileno() in ready:
                    self._hear()
                else:
                    self._behind = False
                if self._lost and not self._waiting and not self._behind:
                    self._lost = False
                    self._put([Change(event="lost")])
                    self._tell_all()

    def _wait(self, *, ended: bool) -> dict[int, int]:
        poll = select.poll()
        mask = select.POLLIN | (select.POLLOUT if self._waiting else 0)
        poll.register(self._channel, mask)
        if not ended:
            poll.register(self._socket, select.POLLIN)
            self._end.register(poll)
        return dict(poll.poll(0 if self._behind else None))

    def _is_read(self, ready: dict[int, int]) -> bool:
        """Send what there is room for; whether anybody is there to read it."""
        if ready[self._channel.fileno()] & ~select.POLLOUT:
            return False  # the reader says nothing but that it goes
        try:
            while self._waiting:
                sent = self._channel.send(self._waiting[0])
                rest = self._waiting.popleft()[sent:]
                if rest:
                    self._waiting.appendleft(rest)
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _put(self, changes: Iterable[Change]) -> None:
        self._waiting.extend(messages.frame(_encode(each)) for each in changes)

    def _farewell(self) -> None:
        """Say why it ends, and hold the namespace no longer."""
        self._socket.close()
        self._namespaces.release()
        self._put([Change(event="end", code=NotFound.code, text=f"{self._about}: it is gone")])

    # What is there

    def _tell_all(self) -> None:
        links = looking.links(self._namespaces, self._ns)
        self._names = {each.index: each.name for each in links}
        routes = looking.routes(self._namespaces, self._ns)
        self._routes = set(routes)
        bare = [msgspec.structs.replace(each, addresses=()) for each in links]
        self._put(Change(event="link", link=each) for each in bare)
        self._put(
            Change(event="address", address=address, interface=each.name)
            for each in links
            for address in each.addresses
        )
        self._put(Change(event="route", route=each) for each in routes)
        self._put([Change(event="synced")])

    # What changes

    def _hear(self) -> None:
        """Take what the kernel has said, or some of it: the reader has its turn as well.

        When it has dropped some, it says so once, and goes on dropping until all that it had kept
        is taken: only then can what is there be told, and be true from then on.
        """
        quiet = True
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(_MESSAGE)
            except BlockingIOError:
                self._behind = False
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost = self._behind = True
                continue
            for message in self._marshal.parse(data):
                quiet = not self._may_take_routes(message) and quiet
                self._tell(self._changes(message))
        if not quiet:
            self._tell(self._silent_routes())

    def _tell(self, changes: Iterable[Change]) -> None:
        for each in changes:
            self._lost = self._lost or len(self._waiting) >= QUEUE
            if not self._lost:
                self._put([each])

    def _changes(self, message: Any) -> Iterator[Change]:
        gone = "-deleted" if message["event"].startswith("RTM_DEL") else ""
        match message["event"].removeprefix("RTM_NEW").removeprefix("RTM_DEL"):
            case "LINK" if message["family"] == socket.AF_UNSPEC:  # not that it is in a bridge
                made = looking.link(message, self._names, ())
                self._names[made.index] = made.name
                yield Change(event=f"link{gone}", link=made)
            case "ADDR":
                name = self._names.get(message["index"], "")
                address = looking.address(message)
                yield Change(event=f"address{gone}", address=address, interface=name)
            case "ROUTE":
                route = looking.route(message, self._names)
                if route is not None:
                    (self._routes.discard if gone else self._routes.add)(route)
                    yield Change(event=f"route{gone}", route=route)

    def _may_take_routes(self, message: Any) -> bool:
        """Whether routes may be gone, or be called otherwise, of which nothing is said."""
        if message["event"] != "RTM_NEWLINK":
            return message["event"] in ("RTM_DELLINK", "RTM_DELADDR")
        name: str = message.get("ifname")
        return message.get("state") != "up" or self._names.get(message["index"], name) != name

    def _silent_routes(self) -> Iterator[Change]:
        now = looking.routes(self._namespaces, self._ns)
        for each in self._routes.difference(now):
            yield Change(event="route-deleted", route=each)
        for each in (each for each in now if each not in self._routes):
            yield Change(event="route", route=each)
        self._routes = set(now)


class _End:
    """Tells when a namespace is over: its process has ended, or its file is another one.

    The descriptors by which it is watched keep the kernel from ending it otherwise.
    """

    def __init__(self, ns: str, namespaces: Namespaces) -> None:
        self._ns = ns
        self._process = self._mounts = -1
        if not ns:
            return
        found = os.fstat(namespaces.file(ns))
        self._identity = found.st_dev, found.st_ino
        if match := _OF_PROCESS.fullmatch(ns):
            self._process = os.pidfd_open(int(match[1]))
        elif Path(ns).resolve().is_relative_to("/proc"):
            raise InvalidArgument(f'"{ns}" cannot be watched: of /proc only /proc/PID/ns/net can')
        else:
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            if self._is_other():  # already, before anybody would tell
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), ns)

    def register(self, poll: select.poll) -> None:
        if self._process >= 0:
            poll.register(self._process, select.POLLIN)
        if self._mounts >= 0:
            poll.register(self._mounts, select.POLLPRI)

    def has_come(self, ready: dict[int, int]) -> bool:
        return self._process in ready or (self._mounts in ready and self._is_other())

    def _is_other(self) -> bool:
        try:
            found = Path(self._ns).stat()
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._identity
