"""Authorization: challenges, bearer tokens, basic credentials (RFC 9110, 11; token spec)."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec

from orlop import typed
from orlop.errors import (
    InvalidArgument,
    NotFound,
    OrlopError,
    Unauthenticated,
    Unimplemented,
)
from orlop.registry.addresses import split

_CHALLENGES_MAX = 8192
_PAIR = r'[\w-]+=(?:"(?:[^"\\]|\\.)*"|[^\s,"]+)'
_CHALLENGE = re.compile(rf"([\w-]+)((?:(?:\s*,\s*|\s+){_PAIR})*)")
_PARAMETER = re.compile(r'([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
# A token without a lifetime lasts this many seconds (token spec, "expires_in").
_TOKEN_LIFE = 60
_BASIC_LIFE = 24 * 3600
_MARGIN = 5.0
_CLIENT_ID = "orlop"
# Longer headers are taken by no server.
_TOKEN_MAX = 32 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and secret for one registry, or a refresh token, or a whole header."""

    username: str = ""
    secret: str = ""
    refresh_token: str = ""
    header: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"  # a secret does not go into a log

    @property
    def basic(self) -> str:
        """An Authorization header, "" without a secret."""
        if not self.secret:
            return ""
        pair = f"{self.username}:{self.secret}".encode()
        return "Basic " + base64.b64encode(pair).decode()


# Asked when a host wants credentials: its name, and the challenges that it sent.
Ask = Callable[[str, Sequence[str]], Credentials | None]
# Method, URL, headers and body of a request to a token server: the body of its answer.
GetToken = Callable[[str, str, dict[str, str], bytes | None], bytes]


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header (RFC 9110, 11.6.1); schemes in lower case."""
    found = []
    for match in _CHALLENGE.finditer(header[:_CHALLENGES_MAX]):
        parameters = {
            key.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare
            for key, quoted, bare in _PARAMETER.findall(match[2])
        }
        found.append(Challenge(match[1].lower(), parameters))
    return found


class _Token(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


class Authorizer:
    """Finds the Authorization header for one repository, and remembers it while it is good.

    `secure` says that the registry is spoken to by TLS: its secrets then go nowhere without.
    """

    def __init__(
        self, host: str, scope: str, ask: Ask | None, get_token: GetToken, *, secure: bool
    ) -> None:
        self._host = host
        # All that has been wanted so far: one token serves every request.
        self._scopes = dict.fromkeys(scope.split())
        self._ask = ask
        self._get_token = get_token
        self._secure = secure
        self._credentials: Credentials | None = None
        # Held while a token is fetched: who else is refused meanwhile waits for that one.
        self._answering = threading.Lock()
        self._kept = ("", 0.0)

    def header(self) -> str:
        """What to send with a request, "" for nothing."""
        header, expires = self._kept
        return header if time.monotonic() < expires else ""

    def answer(self, www_authenticate: str, refused: str) -> None:
        """Find a header that satisfies the challenges, other than the one that was refused.

        Raises Unauthenticated when there is none.
        """
        with self._answering:
            if self.header() in ("", refused):
                self._find(www_authenticate)

    def _find(self, www_authenticate: str) -> None:
        if self._credentials is None and self._ask is not None:
            self._credentials = self._ask(self._host, [www_authenticate])
        credentials = self._credentials
        if credentials is not None and credentials.header:
            self._keep(credentials.header, _TOKEN_LIFE)
            return
        offered = {each.scheme: each for each in reversed(parse_challenges(www_authenticate))}
        if "bearer" in offered:
            self._bearer(offered["bearer"], credentials or Credentials())
        elif "basic" in offered and credentials is not None and credentials.basic:
            self._keep(credentials.basic, _BASIC_LIFE)
        else:
            raise Unauthenticated(
                f'registry "{self._host}" wants credentials{self._for_what()}, and none were given'
            )

    def _for_what(self) -> str:
        """The repositories that have been asked for."""
        names = [scope.split(":")[1] for scope in self._scopes if scope.count(":") >= 2]
        return f' for "{", ".join(dict.fromkeys(names))}"' if names else ""

    def _bearer(self, challenge: Challenge, credentials: Credentials) -> None:
        realm = challenge.parameters.get("realm", "")
        safe = realm.startswith("https://" if self._secure else ("https://", "http://"))
        if not safe or split(realm) is None:
            raise InvalidArgument(
                f'registry "{self._host}" names "{realm}" to get a token from, which is '
                f"{'a malformed address' if safe else 'not safe'}"
            )
        self._scopes |= dict.fromkeys(challenge.parameters.get("scope", "").split())
        query = [("scope", each) for each in self._scopes]
        if "service" in challenge.parameters:
            query.append(("service", challenge.parameters["service"]))
        self._keep_token(realm, self._fetch(realm, query, credentials))

    def _fetch(self, realm: str, query: list[tuple[str, str]], credentials: Credentials) -> bytes:
        if credentials.refresh_token:
            return self._oauth2(realm, query, refresh_token=credentials.refresh_token)
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        headers = {"Authorization": credentials.basic} if credentials.basic else {}
        try:
            return self._get_token("GET", url, headers, None)
        except OrlopError as error:
            if not credentials.basic or not isinstance(error, NotFound | Unimplemented):
                raise
        return self._oauth2(
            realm, query, username=credentials.username, password=credentials.secret
        )

    def _oauth2(self, realm: str, query: list[tuple[str, str]], **secrets: str) -> bytes:
        """The way for refresh tokens, and for servers that take no GET (token spec, "oauth2")."""
        form = {
            "scope": " ".join(value for key, value in query if key == "scope"),
            **{key: value for key, value in query if key != "scope"},
            "grant_type": "refresh_token" if "refresh_token" in secrets else "password",
            "client_id": _CLIENT_ID,
            **secrets,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._get_token("POST", realm, headers, urlencode(form).encode())

    def _keep_token(self, realm: str, body: bytes) -> None:
        try:
            found = typed.decode(body, _Token)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(f'token from "{realm}" does not parse: {error}') from None
        token = found.token or found.access_token or ""
        if not token:
            raise Unauthenticated(f'"{realm}" answers without a token')
        if len(token) > _TOKEN_MAX or not (token.isascii() and token.isprintable()):
            raise Unauthenticated(f'"{realm}" answers without a token that is fit for a header')
        self._keep(f"Bearer {token}", found.expires_in or _TOKEN_LIFE)

    def _keep(self, header: str, seconds: float) -> None:
        self._kept = (header, time.monotonic() + max(seconds - _MARGIN, 1.0))
