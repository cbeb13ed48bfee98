"""Programs that keep credentials: `docker-credential-NAME get|store|erase|list`.

The protocol is that of docker-credential-helpers: a request on standard input, JSON on standard
output, and a message there when it fails.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from typing import IO, Any

from orlop.credentials.model import TOKEN_USER, Credential, from_pair
from orlop.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unknown,
)

_NOT_FOUND = "credentials not found in native keychain"
# A helper may ask its user for a passphrase.
_PATIENCE = 60.0
_ANSWER_MAX = 1 << 20
_SHOWN = 200


class Helper:
    """The helper `docker-credential-NAME`, found on the PATH. `patience` is in seconds."""

    def __init__(self, name: str, patience: float = _PATIENCE) -> None:
        if not name or "/" in name or "\0" in name:
            raise InvalidArgument(f"credential helper {name!r} is not the name of a program")
        self.program = f"docker-credential-{name}"
        self._patience = patience

    def get(self, server: str) -> Credential | None:
        """What it keeps for a server, None when that is nothing."""
        try:
            found = self._json("get", server)
        except NotFound:
            return None
        name, secret = found.get("Username", ""), found.get("Secret", "")
        if not isinstance(name, str) or not isinstance(secret, str):
            raise self._garbage("get")
        return from_pair(name, secret) or None

    def store(self, server: str, credential: Credential) -> None:
        token = credential.identity_token
        request = {
            "ServerURL": server,
            "Username": TOKEN_USER if token else credential.username,
            "Secret": token or credential.secret,
        }
        self._run("store", json.dumps(request))

    def erase(self, server: str) -> bool:
        """Forget a server; whether it was known, as far as the helper says."""
        try:
            self._run("erase", server)
        except NotFound:
            return False
        return True

    def servers(self) -> dict[str, str]:
        """The servers that it knows, with the user's name at each."""
        found = self._json("list", "")
        if not all(isinstance(name, str) for name in found.values()):
            raise self._garbage("list")
        return found

    def _json(self, action: str, request: str) -> dict[str, Any]:
        try:
            found = json.loads(self._run(action, request))
        except (ValueError, RecursionError):
            raise self._garbage(action) from None
        if not isinstance(found, dict):
            raise self._garbage(action)
        return found

    def _garbage(self, action: str) -> Exception:
        # What it printed may hold a secret, so it is not shown.
        return InvalidArgument(
            f'credential helper "{self.program}" answers "{action}" with something else than '
            "the JSON that it should"
        )

    def _run(self, action: str, request: str) -> bytes:
        try:
            process = subprocess.Popen(
                [self.program, action], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise FailedPrecondition(
                f'credential helper "{self.program}" cannot be run ({error.strerror}); install it, '
                "or take it out of credsStore and credHelpers in the credentials file"
            ) from None
        try:
            answer = self._talk(process, action, request.encode())
            status = process.wait(self._patience)
        except subprocess.TimeoutExpired:
            raise self._too_slow(action) from None
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
        if status != 0:
            raise self._failed(action, answer)
        return answer

    def _talk(self, process: subprocess.Popen[bytes], action: str, request: bytes) -> bytes:
        """Send the request and read the answer; neither may take long, or be long."""
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + self._patience
        answer = b""
        with selectors.DefaultSelector() as ready:
            for pipe, event in (
                (process.stdin, selectors.EVENT_WRITE),
                (process.stdout, selectors.EVENT_READ),
            ):
                os.set_blocking(pipe.fileno(), False)
                ready.register(pipe, event)
            while True:
                events = ready.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    raise self._too_slow(action)
                for key, _ in events:
                    if key.fileobj is process.stdout:
                        data = os.read(key.fd, 65536)
                        if not data:
                            return answer
                        answer += data
                        if len(answer) > _ANSWER_MAX:
                            raise ResourceExhausted(
                                f'credential helper "{self.program}" answers "{action}" with '
                                f"more than {_ANSWER_MAX} bytes"
                            )
                        continue
                    request = request[_write(key.fd, request) :]
                    if not request:
                        ready.unregister(process.stdin)
                        _close(process.stdin)

    def _too_slow(self, action: str) -> Exception:
        return DeadlineExceeded(
            f'credential helper "{self.program}" did not answer "{action}" '
            f"within {self._patience:g} seconds"
        )

    def _failed(self, action: str, answer: bytes) -> Exception:
        said = answer.decode(errors="replace").strip()
        if _NOT_FOUND in said:
            return NotFound("credentials")
        return Unknown(f'credential helper "{self.program}" fails to {action}: {said[:_SHOWN]!r}')


def _write(fd: int, data: bytes) -> int:
    """How much was taken; all of it by a helper that reads no more."""
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        return len(data)


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # it reads no more
