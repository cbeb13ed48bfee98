"""Authorization: challenges, bearer tokens, basic credentials (RFC 7235, token spec)."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from orlop.errors import InvalidArgument, Unauthenticated

_CHALLENGE = re.compile(r'([A-Za-z]+)((?:\s*,?\s*[A-Za-z_]+=(?:"(?:[^"\\]|\\.)*"|[^\s,]+))*)')
_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
# A token without a lifetime lasts this many seconds (token spec, "expires_in").
_TOKEN_LIFE = 60
_MARGIN = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and secret for one registry, or a whole Authorization header."""

    username: str = ""
    secret: str = ""
    header: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"  # a secret does not go into a log

    @property
    def basic(self) -> str:
        pair = f"{self.username}:{self.secret}".encode()
        return "Basic " + base64.b64encode(pair).decode()


# Asked when a registry wants credentials: the challenges that it sent.
Ask = Callable[[Sequence[str]], Credentials | None]
# GET url with an Authorization header or "": the body.
GetToken = Callable[[str, dict[str, str], str], bytes]


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header (RFC 7235, 4.1)."""
    found = []
    for match in _CHALLENGE.finditer(header):
        parameters = {
            key.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
            for key, quoted, plain in _PARAMETER.findall(match[2])
        }
        found.append(Challenge(match[1].lower(), parameters))
    return found


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: int = _TOKEN_LIFE


class Authorizer:
    """Finds the Authorization header for one registry, and remembers it while it is good."""

    def __init__(self, host: str, scope: str, ask: Ask | None, get_token: GetToken) -> None:
        self._host = host
        self._scope = scope
        self._ask = ask
        self._get_token = get_token
        self._header = ""
        self._expires = 0.0

    def header(self) -> str:
        """What to send with a request, "" for nothing."""
        return self._header if time.monotonic() < self._expires else ""

    def answer(self, www_authenticate: str) -> None:
        """Find a header that satisfies the challenges; Unauthenticated when there is none."""
        challenges = parse_challenges(www_authenticate)
        credentials = self._ask([www_authenticate]) if self._ask else None
        if credentials is not None and credentials.header:
            self._keep(credentials.header, _TOKEN_LIFE)
            return
        for challenge in challenges:
            if challenge.scheme == "bearer":
                self._bearer(challenge, credentials)
                return
        if any(c.scheme == "basic" for c in challenges) and credentials is not None:
            self._keep(credentials.basic, 24 * 3600)
            return
        raise Unauthenticated(f'registry "{self._host}" wants credentials, and none were given')

    def _bearer(self, challenge: Challenge, credentials: Credentials | None) -> None:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise InvalidArgument(f'registry "{self._host}" names a token realm "{realm}"')
        query = {"scope": challenge.parameters.get("scope") or self._scope}
        if "service" in challenge.parameters:
            query["service"] = challenge.parameters["service"]
        basic = credentials.basic if credentials and credentials.secret else ""
        body = self._get_token(realm, query, basic)
        try:
            token = msgspec.json.decode(body, type=_Token)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f'token from "{realm}" does not parse: {error}') from None
        value = token.token or token.access_token
        if not value:
            raise Unauthenticated(f'"{realm}" answered without a token')
        self._keep(f"Bearer {value}", max(token.expires_in, 1))

    def _keep(self, header: str, seconds: float) -> None:
        self._header = header
        self._expires = time.monotonic() + max(seconds - _MARGIN, 1.0)
