"""How a registry says no."""

from __future__ import annotations

from collections.abc import Mapping

from orlop import errors
from orlop.web import Reply


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
