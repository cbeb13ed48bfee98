"""What browsers are answered: the page's files, what there is as JSON, and the stream of events."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import resources
from pathlib import PurePath

import msgspec

from orlop.errors import OrlopError
from orlop.events import Subscription
from orlop.status.events import batches
from orlop.status.overview import Overview
from orlop.web import Limits, Reply, Request, Token
from orlop.web.hosts import is_welcome
from orlop.web.shared import Shared
from orlop.web.token import CHALLENGE

_log = logging.getLogger(__name__)

# A page has up to six connections; who says nothing, or does not read, is not waited for.
LIMITS = Limits(connections=48, patience=10.0, yielding=True)
_STREAMS = 16
"""Streams of events at a time, so that they leave connections for the rest."""
_FRESH = 0.5
"""Seconds for which an answer is good enough: what looks cost does not depend on who asks."""
_WAIT = 0.5
_HEARTBEAT = 15.0
"""Seconds after which a silent stream says something, for proxies between."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE = resources.files(__package__).joinpath("page")
_INDEX = "index.html"
_FILES = {each.name for each in _PAGE.iterdir()}
_GUARDED = "/v1/"
# Nothing but what is served here runs or is shown, nothing else is reached, and text stays text.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class StatusSite:
    """Answers browsers that call it by an address, localhost or one of `hosts`.

    What is told of containers is for those alone that have the token, if there is one.
    """

    def __init__(self, overview: Overview, token: Token, hosts: Collection[str]) -> None:
        self._overview = overview
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)
        self._streams = threading.BoundedSemaphore(_STREAMS)
        self._answers: Mapping[str, Shared] = {
            "/v1/state": Shared(lambda: msgspec.json.encode(overview.state()), _FRESH),
            "/v1/images": Shared(lambda: msgspec.json.encode(overview.images()), _FRESH),
        }

    def answer(self, request: Request) -> Reply:
        if not is_welcome(request.headers.get("host", ""), self._hosts):
            return self.refuse(421, "call this page by an address, localhost or a status.hosts")
        if request.method not in ("GET", "HEAD"):
            return _reply(405, "this page can only be read\n", {"Allow": "GET, HEAD"})
        if (name := request.path.removeprefix("/") or _INDEX) in _FILES:
            return _file(name)
        if not request.path.startswith(_GUARDED):
            return self.refuse(404, "there is nothing here; the page is at /")
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return self.refuse(403, "pages of other sites may not ask")
        try:
            if not self._token.admits(request.headers.get("authorization", "")):
                return _reply(401, "a bearer token is needed\n", CHALLENGE)
            return self._guarded(request.path)
        except (OrlopError, OSError, sqlite3.Error) as error:
            _log.warning("status cannot be told: %s", error)
            return self.refuse(503, f"status cannot be told: {error}")

    def refuse(self, status: int, message: str) -> Reply:
        return _reply(status, f"{message}\n")

    def _guarded(self, path: str) -> Reply:
        if (shared := self._answers.get(path)) is not None:
            return _reply(200, shared.get(), {"Content-Type": "application/json"})
        if path != "/v1/events":
            return self.refuse(404, "there are /v1/state, /v1/images and /v1/events")
        if not self._streams.acquire(blocking=False):
            return self.refuse(503, f"{_STREAMS} others follow the events already")
        stream = _EventStream(self._overview.events(), self._streams.release)
        headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        return Reply(200, {**_HEADERS, **headers}, stream)


class _EventStream:
    """Server-sent events (HTML standard, section 9.2): "event" with an Event, or "skipped"."""

    def __init__(self, subscription: Subscription, ended: Callable[[], None]) -> None:
        self._subscription = subscription
        self._ended = ended

    def pieces(self) -> Iterator[bytes]:
        yield b"retry: 2000\n\n"
        said = time.monotonic()
        try:
            for batch in batches(self._subscription, _WAIT):
                if batch:
                    yield b"".join(b"data: %s\n\n" % msgspec.json.encode(each) for each in batch)
                elif time.monotonic() - said < _HEARTBEAT:
                    yield b""
                    continue
                else:
                    yield b": nothing new\n\n"
                said = time.monotonic()
        except OrlopError as error:
            _log.info("a page was too slow for its events: %s", error)

    def close(self) -> None:
        self._subscription.close()
        self._ended()


def _file(name: str) -> Reply:
    kind = _TYPES[PurePath(name).suffix]
    return _reply(200, _PAGE.joinpath(name).read_bytes(), {"Content-Type": kind})


def _reply(status: int, body: bytes | str, headers: Mapping[str, str] | None = None) -> Reply:
    data = body.encode() if isinstance(body, str) else body
    kind = {"Content-Type": "text/plain; charset=utf-8"}
    return Reply(status, {**_HEADERS, **kind, **(headers or {})}, data)
