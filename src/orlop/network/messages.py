"""What is said between the daemon and the network worker: JSON behind four bytes of length.

A frame of no length is the worker's goodbye: it reads nothing more.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from orlop.network.model import Chain
from orlop.network.operations import AnyOperation

_LENGTH = struct.Struct("!I")


class Request(msgspec.Struct, frozen=True, tag=True):
    """Base of all requests; with `keep` the worker waits for the next one without limit."""

    keep: bool = False


class Apply(Request, frozen=True, kw_only=True):
    """Apply operations, whole or not at all."""

    operations: list[AnyOperation]


class Look(Request, frozen=True, kw_only=True):
    """List `what`: links, routes, neighbours or rules of a namespace."""

    what: str
    ns: str = ""


class ReadSysctl(Request, frozen=True, kw_only=True):
    """The value of a sysctl below net."""

    name: str
    ns: str = ""


class Pin(Request, frozen=True, kw_only=True):
    """Make a network namespace and pin it at `path`, a file that is there."""

    path: str


class Filter(Request, frozen=True, kw_only=True):
    """Have nftables run commands in its own language, in one transaction; its output.

    With `check` they are only tried.
    """

    commands: str
    check: bool = False


class SetChains(Request, frozen=True, kw_only=True):
    """Make chains of iptables these, for one version of IP; with `check` it is only tried."""

    version: int
    chains: list[Chain]
    check: bool = False


class HasChains(Request, frozen=True, kw_only=True):
    """Whether chains of iptables, for one version of IP, are still there."""

    version: int
    chains: list[Chain]


class ForgetFlows(Request, frozen=True, kw_only=True):
    """Forget to whom UDP packets to these ports of the host were led."""

    ports: list[int]


AnyRequest = Apply | Look | ReadSysctl | Pin | Filter | SetChains | HasChains | ForgetFlows


class Failure(msgspec.Struct, frozen=True):
    """An error's code and text."""

    code: int
    message: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a request."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


def frame(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def send(channel: socket.socket, data: bytes) -> None:
    channel.sendall(frame(data))


def receive(channel: socket.socket) -> bytes | None:
    """The next frame; None at the end of the stream."""
    head = _exactly(channel, _LENGTH.size)
    return None if head is None else _exactly(channel, _LENGTH.unpack(head)[0])


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)
