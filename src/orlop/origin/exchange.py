"""The nouns of one HTTP exchange: a request, its reply, and the refusal that is a reply too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from orlop import errors
from orlop.content import BlobReader
from orlop.origin.body import Body


class Refusal(Exception):
    """A request that is not done, with its HTTP status and the error code that clients know.

    Codes are those of the OCI distribution spec, "Error Codes".
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def reply(self) -> Reply:
        error = {"code": self.code, "message": self.message, "detail": None}
        return Reply.json({"errors": [error]}, status=self.status, headers=self.headers)


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is decoded; `query` has the first value of each key; header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an open blob, in bytes. Whoever sends it closes the blob."""

    blob: BlobReader
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back; the length of the body is its own affair."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Slice = b""

    @property
    def length(self) -> int:
        return self.body.length if isinstance(self.body, Slice) else len(self.body)

    def close(self) -> None:
        if isinstance(self.body, Slice):
            self.body.blob.close()

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


_STATUSES: tuple[tuple[type[errors.OrlopError], int, str], ...] = (
    (errors.InvalidArgument, 400, "UNSUPPORTED"),
    (errors.NotFound, 404, "NAME_UNKNOWN"),
    (errors.ResourceExhausted, 507, "TOOMANYREQUESTS"),
    (errors.Unavailable, 503, "TOOMANYREQUESTS"),
)


def refusal_of(error: errors.OrlopError) -> Refusal:
    """How an error of the rooms below is told to a client that asked for nothing special."""
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return Refusal(status, code, error.message)
    return Refusal(500, "UNKNOWN", error.message)
