"""Netlink sockets and file views of network namespaces, for the worker alone.

A socket belongs to the namespace in which it was made: this thread enters the namespace, makes
it, and comes home. What was opened for a request is closed at its end, as a socket keeps its
namespace alive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from orlop.errors import InvalidArgument
from orlop.network.rtnetlink import Rtnetlink
from orlop.sys.process import CLONE_NEWNET, setns

_OWN = "/proc/thread-self/ns/net"
_NS_GET_NSTYPE = 0xB703


class Namespaces:
    """Network namespaces by the path of their file, "" is this process's own."""

    def __init__(self) -> None:
        self.home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        self._own = IPRoute()
        self._sockets: dict[str, IPRoute] = {}
        self._raw: dict[str, Rtnetlink] = {}
        self._files: dict[str, int] = {}

    def file(self, ns: str) -> int:
        """A descriptor of the namespace, valid until `release`.

        Raises OSError, and InvalidArgument for the file of something else.
        """
        if not ns:
            return self.home
        if ns not in self._files:
            fd = os.open(ns, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if not _is_namespace(fd):
                os.close(fd)
                raise InvalidArgument(f'"{ns}" is no network namespace')
            self._files[ns] = fd
        return self._files[ns]

    @contextmanager
    def inside(self, ns: str) -> Iterator[None]:
        """This thread is in the namespace meanwhile."""
        if not ns:
            yield
            return
        setns(self.file(ns), CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self.home, CLONE_NEWNET)

    def netlink(self, ns: str) -> IPRoute:
        """A socket in the namespace."""
        if not ns:
            return self._own
        if ns not in self._sockets:
            with self.inside(ns):
                self._sockets[ns] = IPRoute()
        return self._sockets[ns]

    def raw(self, ns: str) -> Rtnetlink:
        """One there for messages as the kernel has them."""
        if ns not in self._raw:
            with self.inside(ns):
                self._raw[ns] = Rtnetlink()
        return self._raw[ns]

    def index(self, ns: str, link: str) -> int:
        """The number of an interface; OSError (ENODEV) without it."""
        with self.inside(ns):
            try:
                return socket.if_nametoindex(link)
            except OSError:  # which has no errno
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None

    def release(self) -> None:
        """Close what the request has opened."""
        for each in (*self._sockets.values(), *self._raw.values()):
            each.close()
        for fd in self._files.values():
            os.close(fd)
        self._sockets.clear()
        self._raw.clear()
        self._files.clear()

    def read_sysctl(self, ns: str, name: str) -> str:
        with self.inside(ns):
            return sysctl_path(name).read_text().strip()

    def write_sysctl(self, ns: str, name: str, value: str) -> None:
        with self.inside(ns):
            sysctl_path(name).write_text(value)


def _is_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def sysctl_path(name: str) -> Path:
    """The file of a sysctl below net; OSError (EINVAL) for another name."""
    parts = name.split("/") if "/" in name else name.split(".")
    if parts[0] != "net" or not all(parts) or ".." in parts:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    return Path("/proc/sys", *parts)
