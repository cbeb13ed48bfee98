"""Answers to the daemon's questions for credentials, on a stream beside the call."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.any_pb2 import Any

from orlop.client.connection import Connection
from orlop.client.streams import MessageStream
from orlop.credentials import Credential, Keyring
from orlop.credentials.model import server_key
from orlop.errors import OrlopError
from orlop.oci import reference
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types

# Asked with the host that wants to know, and the reference that is transferred.
Answer = Callable[[str, str], Credential | None]


def answer_for(given: Credential | None = None, keyring: Keyring | None = None) -> Answer:
    """Answers with `given` for the registry of the reference, else from `keyring`.

    `given` goes to no other host than that, so not to its mirrors either. The keyring is the user's
    unless one is given.
    """
    known = keyring if keyring is not None else Keyring.of_user()

    def answer(host: str, name: str) -> Credential | None:
        wanted = reference.parse(name)
        at_home = server_key(host) == server_key(wanted.host)
        if given and at_home:
            return given
        return known.find(host, wanted.path if at_home else "")

    return answer


class AuthStream(MessageStream):
    """Answers each question by `answer`. `error` is why it could not, if ever it could not."""

    def __init__(self, connection: Connection, answer: Answer) -> None:
        self.error: OrlopError | None = None
        self._answer = answer
        super().__init__(connection, "auth")

    def handle(self, message: Any) -> None:
        question = types.AuthRequest.FromString(message.value)
        try:
            found = self._answer(question.host, question.reference)
        except OrlopError as error:
            self.error = error  # the registry may do without; else this is what to say
            found = None
        self.send(pack(_response(found)))


def _response(found: Credential | None) -> types.AuthResponse:
    if not found:
        return types.AuthResponse(authType=types.NONE)
    if found.registry_token:
        return types.AuthResponse(authType=types.HEADER, secret=f"Bearer {found.registry_token}")
    if found.identity_token:
        return types.AuthResponse(authType=types.REFRESH, secret=found.identity_token)
    return types.AuthResponse(
        authType=types.CREDENTIALS, username=found.username, secret=found.secret
    )
