"""Where metrics are scraped: paths, formats, compression, who may."""

from __future__ import annotations

import hmac
import logging
import os
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isal import isal_zlib

from orlop.errors import FailedPrecondition, OrlopError
from orlop.metrics.scraper import Scraper
from orlop.rpc.dispatch import claim_socket_path
from orlop.web import HttpServer, Limits, Reply, Request, Tls
from orlop.web.server import listen_tcp

_log = logging.getLogger(__name__)

PATHS = ("/metrics", "/v1/metrics")
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# Scrapers come again: who does not read, or says nothing, is not waited for as long as a pull.
LIMITS = Limits(connections=16, patience=10.0, yielding=True)
_TOKEN_MAX = 4096
_LEVEL, _WINDOW = 1, 16 + 15
_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """`path` of a Unix socket with its `mode`, or `host` and `port`; `token` is a file's path."""

    path: str = ""
    mode: int = 0o600
    host: str = ""
    port: int = 0
    tls: Tls | None = None
    token: str = ""


class Endpoint:
    """Listens from the start, serves after `start`, until `close`.

    Raises FailedPrecondition when the address, a certificate or the token cannot be had.
    """

    def __init__(self, settings: Settings, limits: Limits = LIMITS) -> None:
        self._settings = settings
        if settings.token:
            _read_token(settings.token)
        tls = settings.tls.context("the metrics") if settings.tls else None
        if settings.path:
            listener = _listen_unix(settings.path, settings.mode)
            self.address = settings.path
        else:
            listener = listen_tcp(settings.host, settings.port, "metrics")
            shown = f"[{settings.host}]" if ":" in settings.host else settings.host
            self.address = f"{shown}:{listener.getsockname()[1]}"
        self._server = HttpServer("metrics", listener, tls, limits)

    def start(self, scraper: Scraper) -> None:
        self._server.start(MetricsSite(scraper, self._settings.token))

    def close(self) -> None:
        self._server.close()
        if self._settings.path:
            with suppress(FileNotFoundError):
                Path(self._settings.path).unlink()


class MetricsSite:
    """Answers scrapers; with `token`, the path of a file, those alone that know what is in it."""

    def __init__(self, scraper: Scraper, token: str) -> None:
        self._scraper = scraper
        self._token = token

    def answer(self, request: Request) -> Reply:
        if request.path not in PATHS:
            return self.refuse(404, f"metrics are at {PATHS[0]}")
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "metrics can only be read", {"Allow": "GET, HEAD"})
        try:
            if not self._may(request.headers.get("authorization", "")):
                return _refusal(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
            openmetrics = wants(request.headers.get("accept", ""), "application/openmetrics-text")
            text = self._scraper.text(openmetrics=openmetrics)
        except (OrlopError, OSError, sqlite3.Error) as error:
            _log.warning("metrics cannot be gathered: %s", error)
            return self.refuse(503, f"metrics cannot be gathered: {error}")
        headers = {"Content-Type": OPENMETRICS if openmetrics else TEXT, "Vary": "Accept-Encoding"}
        if wants(request.headers.get("accept-encoding", ""), "gzip"):
            headers["Content-Encoding"] = "gzip"
            text = isal_zlib.compress(text, _LEVEL, _WINDOW)
        return Reply(200, headers, text)

    def refuse(self, status: int, message: str) -> Reply:
        return _refusal(status, message)

    def _may(self, authorization: str) -> bool:
        if not self._token:
            return True
        scheme, _, told = authorization.partition(" ")
        wanted = _read_token(self._token)  # it may have been changed
        return scheme.lower() == "bearer" and hmac.compare_digest(told.strip().encode(), wanted)


def wants(header: str, name: str) -> bool:
    """Whether a header such as Accept names something, and not to say that it is unwelcome."""
    for part in header.lower().split(","):
        what, *parameters = (each.strip() for each in part.split(";"))
        if what == name:
            return not any(each.replace(" ", "") in ("q=0", "q=0.0") for each in parameters)
    return False


def _refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    kind = {"Content-Type": "text/plain; charset=utf-8"}
    return Reply(status, {**kind, **(headers or {})}, f"{message}\n".encode())


def _read_token(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            token = file.read(_TOKEN_MAX).strip()
    except OSError as error:
        raise FailedPrecondition(f'token of the metrics, "{path}": {error.strerror}') from None
    if not token:
        raise FailedPrecondition(f'token of the metrics, "{path}": the file is empty')
    return token


def _listen_unix(path: str, mode: int) -> socket.socket:
    claim_socket_path(Path(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, mode)  # noqa: PTH101 - as the line above
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise FailedPrecondition(f'cannot serve metrics on "{path}": {error.strerror}') from error
    return listener
