"""Errors that say what failed, on what host, and in the registry's own words why.

Query strings are left out: those of redirects and token requests hold secrets.
"""

from __future__ import annotations

import re

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, SSLError

from orlop import typed
from orlop.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from orlop.registry.addresses import authority, plain
from orlop.registry.pace import read_whole


class Silent(Unavailable):
    """A host to which there is no connection, or that says nothing on it."""


_BODY_MAX = 16 * 1024
_WORDS_MAX = 300
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_KINDS: dict[int, type[OrlopError]] = {
    400: InvalidArgument,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    405: Unimplemented,
    408: Unavailable,
    413: ResourceExhausted,
    416: DataLoss,
    429: Unavailable,
}
_CONNECTION = re.compile(r"^.*(?:Connection\(host=.*?\)|>): ")
_ADVICE = {
    401: "it wants credentials, or other ones",
    413: "it, or a proxy before it, takes no request of that size",
    429: "try again later, or with credentials",
}


def connection_error(method: str, url: str, error: HTTPError) -> OrlopError:
    """The error for a host that does not answer."""
    host = authority(url)
    if isinstance(error, SSLError):
        if "WRONG_VERSION" in str(error).upper():
            return Unavailable(
                f'registry "{host}" does not speak TLS; is it to be used by plain HTTP?'
            )
        return Unavailable(f'registry "{host}" is not to be trusted: {_reason(error)}')
    return Silent(f'registry "{host}" does not answer: {method} {plain(url)}: {_reason(error)}')


def _reason(error: BaseException) -> str:
    """The innermost cause, without the connection object that urllib3 puts before it."""
    return _CONNECTION.sub("", str(error))


def status_error(method: str, url: str, response: urllib3.BaseHTTPResponse) -> OrlopError:
    """The error for an unexpected status; closes the response."""
    try:
        body = read_whole(response, _BODY_MAX)
    except HTTPError:
        body = b""
    response.close()
    status = response.status
    parts = [
        f'registry "{authority(url)}" answers {method} {plain(url)} with status {status}',
        _words(body),
        _ADVICE.get(status, ""),
    ]
    kind = _KINDS.get(status, Unavailable if status >= 500 else Unknown)
    return kind(": ".join(filter(None, parts)))


class _Complaint(msgspec.Struct):
    code: str = ""
    message: str = ""
    detail: msgspec.Raw = msgspec.Raw()

    def text(self) -> str:
        """Of the detail, whose form is the registry's own, the digests that it names."""
        digests = (each.decode() for each in _DIGEST.findall(bytes(self.detail)))
        return ": ".join(filter(None, (self.code, self.message, ", ".join(digests))))


class _Complaints(msgspec.Struct):
    errors: list[_Complaint]


def _words(body: bytes) -> str:
    """What a registry says is wrong (OCI distribution spec, "Error Codes"), fit for a terminal."""
    try:
        found = typed.decode(body, _Complaints)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace")
    else:
        text = "; ".join(error.text() for error in found.errors)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _WORDS_MAX else f"{text[:_WORDS_MAX]}…"
