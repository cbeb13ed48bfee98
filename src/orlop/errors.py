"""The error taxonomy: one class per gRPC status code that a caller may branch on.

Domain code raises these; the rpc layer maps them to the wire and back. The text of an error is
lower case, names the object in quotes, and ends in the class's phrase (`container "x": not found`),
because clients of this API test the phrase as well as the code.
"""

from __future__ import annotations

from typing import ClassVar


class OrlopError(Exception):
    """Base of all errors with a meaning on the wire.

    `code` is the gRPC status code number, `phrase` the words that end the message.
    """

    code: ClassVar[int] = 2
    phrase: ClassVar[str] = "unknown"

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        if not self.message:
            return self.phrase
        if self.message.endswith(self.phrase):
            return self.message
        return f"{self.message}: {self.phrase}"


class Cancelled(OrlopError):
    code, phrase = 1, "context canceled"


class Unknown(OrlopError):
    """A failure with no class of its own; its text is all there is to say."""

    code, phrase = 2, "unknown"


class InvalidArgument(OrlopError):
    code, phrase = 3, "invalid argument"


class DeadlineExceeded(OrlopError):
    code, phrase = 4, "context deadline exceeded"


class NotFound(OrlopError):
    code, phrase = 5, "not found"


class AlreadyExists(OrlopError):
    code, phrase = 6, "already exists"


class PermissionDenied(OrlopError):
    code, phrase = 7, "permission denied"


class ResourceExhausted(OrlopError):
    code, phrase = 8, "resource exhausted"


class FailedPrecondition(OrlopError):
    code, phrase = 9, "failed precondition"


class Aborted(OrlopError):
    code, phrase = 10, "aborted"


class OutOfRange(OrlopError):
    code, phrase = 11, "out of range"


class Unimplemented(OrlopError):
    """The operation is not offered here (gRPC UNIMPLEMENTED)."""

    code, phrase = 12, "not implemented"


class Internal(OrlopError):
    code, phrase = 13, "internal"


class Unavailable(OrlopError):
    code, phrase = 14, "unavailable"


class DataLoss(OrlopError):
    code, phrase = 15, "data loss"


class Unauthenticated(OrlopError):
    code, phrase = 16, "unauthenticated"


BY_CODE: dict[int, type[OrlopError]] = {
    cls.code: cls
    for cls in (
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    )
}


def from_code(code: int, message: str) -> OrlopError:
    """The error that a status code and message from a peer stand for."""
    return BY_CODE.get(code, Unknown)(message)
