from __future__ import annotations

import base64
import json
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.errors import InvalidArgument, NotFound, Unauthenticated
from orlop.registry import Ask, Credentials
from orlop.registry.auth import Authorizer, Challenge, parse_challenges
from tests.patience import patient

BEARER = 'Bearer realm="https://auth.example/token?a=b",service="reg",scope="repository:a/b:pull"'


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("Basic", [Challenge("basic", {})]),
        ('Basic realm="a \\"b\\", c"', [Challenge("basic", {"realm": 'a "b", c'})]),
        ("BEARER Realm=x , service=y", [Challenge("bearer", {"realm": "x", "service": "y"})]),
        (
            'Bearer realm="r", error="invalid_token", Basic realm="other"',
            [
                Challenge("bearer", {"realm": "r", "error": "invalid_token"}),
                Challenge("basic", {"realm": "other"}),
            ],
        ),
        ('Bearer realm="unfinished', [Challenge("bearer", {})]),
    ],
)
def test_challenges(header: str, found: list[Challenge]) -> None:
    assert parse_challenges(header)[: len(found) or None] == found


@given(st.text())
def test_any_header_parses(header: str) -> None:
    parse_challenges(header)


@pytest.mark.parametrize("unit", [" ", ",", "a ", 'a="', 'a="b" ', "a=", "\\", 'x a="\\'])
def test_a_long_header_takes_no_time(unit: str) -> None:
    began = time.monotonic()
    parse_challenges("Bearer " + unit * (60_000 // len(unit)))
    assert time.monotonic() - began < patient(10)


class TokenServer:
    def __init__(self, **answer: object) -> None:
        self.answer = answer or {"token": "t0"}
        self.calls: list[tuple[str, str, dict[str, str], bytes | None]] = []

    def __call__(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> bytes:
        self.calls.append((method, url, headers, body))
        return json.dumps(self.answer).encode()


def _authorizer(server: TokenServer, ask: Ask | None = None, secure: bool = True) -> Authorizer:
    return Authorizer("reg.example", "repository:a/b:pull", ask, server, secure=secure)


def test_an_anonymous_token() -> None:
    server = TokenServer(access_token="t1", expires_in=300)
    authorizer = _authorizer(server)
    assert authorizer.header() == ""
    authorizer.answer(BEARER, "")
    assert authorizer.header() == "Bearer t1"
    ((method, url, headers, _),) = server.calls
    assert (method, headers) == ("GET", {})
    assert url == ("https://auth.example/token?a=b&scope=repository%3Aa%2Fb%3Apull&service=reg")


def test_what_another_thread_has_found_is_used() -> None:
    server = TokenServer()
    authorizer = _authorizer(server)
    authorizer.answer(BEARER, "")
    authorizer.answer(BEARER, "")
    assert len(server.calls) == 1
    authorizer.answer(BEARER, "Bearer t0")  # that one was refused
    assert len(server.calls) == 2


def test_a_name_and_a_secret() -> None:
    server = TokenServer()
    authorizer = _authorizer(server, lambda *_: Credentials("me", "pass:word"))
    authorizer.answer(f'Basic realm="x", {BEARER}', "")
    basic = "Basic " + base64.b64encode(b"me:pass:word").decode()
    assert server.calls[0][2] == {"Authorization": basic}
    authorizer = _authorizer(server, lambda *_: Credentials("me", "pass:word"))
    authorizer.answer('Basic realm="x"', "")
    assert authorizer.header() == basic


def test_a_refresh_token_is_posted() -> None:
    server = TokenServer(access_token="t2", expires_in=None)
    authorizer = _authorizer(server, lambda *_: Credentials(refresh_token="r+1"))
    authorizer.answer(BEARER, "")
    assert authorizer.header() == "Bearer t2"
    method, url, _, body = server.calls[0]
    assert (method, url) == ("POST", "https://auth.example/token?a=b")
    assert body is not None
    assert b"grant_type=refresh_token&" in body
    assert b"&refresh_token=r%2B1" in body


def test_one_token_for_all_that_was_wanted() -> None:
    server = TokenServer()
    authorizer = _authorizer(server)
    authorizer.answer(BEARER, "")
    authorizer.answer(BEARER.replace("a/b:pull", "a/b:pull,push repository:c:pull"), "Bearer t0")
    scopes = parse_qs(urlsplit(server.calls[1][1]).query)["scope"]
    assert scopes == ["repository:a/b:pull", "repository:a/b:pull,push", "repository:c:pull"]


def test_a_server_that_takes_no_get() -> None:
    def server(method: str, url: str, headers: dict[str, str], body: bytes | None) -> bytes:
        if method == "GET":
            raise NotFound
        assert body is not None
        assert b"grant_type=password" in body
        assert b"username=me&password=a%26b" in body
        return b'{"access_token": "t3"}'

    authorizer = Authorizer("h", "s", lambda *_: Credentials("me", "a&b"), server, secure=True)
    authorizer.answer(BEARER, "")
    assert authorizer.header() == "Bearer t3"


def test_no_way_in() -> None:
    for header in ("", "Negotiate", 'Basic realm="x"'):
        with pytest.raises(Unauthenticated, match="none were given"):
            _authorizer(TokenServer()).answer(header, "")
    for answer in ({"token": ""}, {"token": "a\r\nX: y"}):
        with pytest.raises(Unauthenticated, match="without a token"):
            _authorizer(TokenServer(**answer)).answer(BEARER, "")
    with pytest.raises(InvalidArgument, match="does not parse"):
        _authorizer(TokenServer(token=5)).answer(BEARER, "")


def test_a_secret_does_not_leave_tls() -> None:
    plain = BEARER.replace("https", "http")
    server = TokenServer()
    with pytest.raises(InvalidArgument, match="not safe"):
        _authorizer(server, lambda *_: Credentials("me", "secret")).answer(plain, "")
    assert server.calls == []
    _authorizer(server, secure=False).answer(plain, "")
    assert len(server.calls) == 1


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(Credentials("me", "hush", "hush", "hush"))
