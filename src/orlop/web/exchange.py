"""The nouns of one HTTP exchange: a request, its reply, and who answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from orlop.web.body import Body


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is decoded; `query` has the first value of each key; header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body


class OpenFile(Protocol):
    """What a part of is sent."""

    @property
    def fd(self) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an open file, in bytes. Whoever sends it closes the file."""

    file: OpenFile
    start: int
    length: int


class Stream(Protocol):
    """A body that goes on until it ends by itself, or the client goes.

    It never waits longer than a second: b"" is nothing new, and has the server look for the client.
    """

    def pieces(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back; the length of the body is its own affair."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Slice | Stream = b""

    @property
    def length(self) -> int | None:
        """Bytes; None for what tells only by its end."""
        if isinstance(self.body, Slice):
            return self.body.length
        return len(self.body) if isinstance(self.body, bytes) else None

    def close(self) -> None:
        if isinstance(self.body, Slice):
            self.body.file.close()
        elif not isinstance(self.body, bytes):
            self.body.close()

    @classmethod
    def json(
        cls,
        document: object,
        *,
        status: int = 200,
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        body = json.dumps(document, separators=(",", ":")).encode()
        return cls(status, {"Content-Type": media_type, **(headers or {})}, body)


class Site(Protocol):
    """What a server shows."""

    def answer(self, request: Request) -> Reply:
        """The reply to a request, whatever comes of it; an error raised hangs up."""

    def refuse(self, status: int, message: str) -> Reply:
        """The reply to what is not even a request."""
