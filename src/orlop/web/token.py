"""A bearer token that clients must send (RFC 6750, section 2.1), kept in a file."""

from __future__ import annotations

import hmac
from pathlib import Path

from orlop.errors import FailedPrecondition

_TOKEN_MAX = 4096
CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Token:
    """The token in the file at `path`, "" for none; `whose` says in errors what it guards.

    Raises FailedPrecondition when it cannot be read or the file is empty.
    """

    def __init__(self, path: str, whose: str) -> None:
        self._path = path
        self._whose = whose
        if path:
            self._read()

    def admits(self, authorization: str) -> bool:
        """Whether a client that sends this header may come in; raises as the constructor does."""
        if not self._path:
            return True
        scheme, _, told = authorization.partition(" ")
        wanted = self._read()  # it may have been changed
        return scheme.lower() == "bearer" and hmac.compare_digest(told.strip().encode(), wanted)

    def _read(self) -> bytes:
        try:
            with Path(self._path).open("rb") as file:
                token = file.read(_TOKEN_MAX).strip()
        except OSError as error:
            raise FailedPrecondition(
                f'token of {self._whose}, "{self._path}": {error.strerror}'
            ) from None
        if not token:
            raise FailedPrecondition(f'token of {self._whose}, "{self._path}": the file is empty')
        return token
