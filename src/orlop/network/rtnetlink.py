"""Messages of rtnetlink(7) as they are: what the kernel tells of an object makes its like again.

pyroute2 is for what is asked in words; of what it reads of an object it cannot give all back.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

REPLACE, EXCLUSIVE, APPEND = 0x100, 0x200, 0x800
_CREATE = 0x400
_MISSING = (errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)
_REQUEST, _ACK, _DUMP, _INTERRUPTED = 0x1, 0x4, 0x300, 0x10
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _STRICT = 270, 12
_ROOM = 1 << 16
_TRIES = 5
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE = 0x3FFF  # without the flag of those that have attributes in them
_NUMBER = struct.Struct("=I")


class Kind(IntEnum):
    """Of objects; the number is that of the message that makes one."""

    LINK = 16
    ADDRESS = 20
    ROUTE = 24
    NEIGHBOUR = 28
    RULE = 32
    QDISC = 36


_HEADS = {
    Kind.LINK: 16,
    Kind.ADDRESS: 8,
    Kind.ROUTE: 12,
    Kind.NEIGHBOUR: 12,
    Kind.RULE: 12,
    Kind.QDISC: 20,
}


@dataclass
class Message:
    """An object: the fixed fields in front, and attributes by their number."""

    kind: Kind
    head: bytes
    attributes: dict[int, bytes]

    @classmethod
    def decode(cls, kind: Kind, data: bytes) -> Message:
        size = _HEADS[kind]
        return cls(kind, data[:size], decode_attributes(data[size:]))

    def encode(self) -> bytes:
        return self.head + encode_attributes(self.attributes)

    def number(self, attribute: int) -> int:
        """An attribute of four bytes; 0 without it."""
        return number(self.attributes.get(attribute, bytes(4)))


def number(data: bytes) -> int:
    return int(_NUMBER.unpack_from(data)[0])


def pack(value: int) -> bytes:
    return _NUMBER.pack(value)


def decode_attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def encode_attributes(attributes: dict[int, bytes]) -> bytes:
    made = bytearray()
    for kind, value in attributes.items():
        length = _ATTRIBUTE.size + len(value)
        made += _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)
    return bytes(made)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class Rtnetlink:
    """A socket of the network namespace in which it is made. Every method raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        with suppress(OSError):  # before 4.20: more is told than asked for
            self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def dump(self, asked: Message) -> list[Message]:
        """All objects of a kind that are as the fields and attributes of `asked` say."""
        for _ in range(_TRIES):  # some may be missing when there were changes meanwhile
            self._send(asked.kind + 2, _DUMP, asked)
            found, whole = [], True
            for kind, flags, body in self._answers():
                whole = whole and not flags & _INTERRUPTED
                if kind == asked.kind:
                    found.append(Message.decode(asked.kind, body))
            if whole:
                break
        return found

    def make(self, wanted: Message, how: int = EXCLUSIVE) -> None:
        """With EXCLUSIVE and APPEND the same that is there will do."""
        try:
            self._do(wanted.kind, _CREATE | how, wanted)
        except FileExistsError:
            pass

    def delete(self, wanted: Message) -> None:
        """One that is not there will do."""
        try:
            self._do(wanted.kind + 1, 0, wanted)
        except OSError as error:
            if error.errno not in _MISSING:
                raise

    def change(self, wanted: Message) -> None:
        """For interfaces: what is said of one that is there."""
        self._do(wanted.kind + 3, 0, wanted)

    def _do(self, kind: int, flags: int, wanted: Message) -> None:
        self._send(kind, _ACK | flags, wanted)
        for _ in self._answers():
            pass

    def _send(self, kind: int, flags: int, wanted: Message) -> None:
        self._sequence += 1
        body = wanted.encode()
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, _REQUEST | flags, self._sequence, 0) + body)

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and body of each message, until the end is told."""
        while True:
            data = self._socket.recv(_ROOM)
            while data:
                size, kind, flags, sequence, _ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : size], data[_aligned(size) :]
                if sequence != self._sequence:
                    continue
                if kind in (_ERROR, _DONE):
                    refused = -struct.unpack_from("=i", body)[0]
                    if refused:
                        raise OSError(refused, os.strerror(refused))
                    return
                yield kind, flags, body
