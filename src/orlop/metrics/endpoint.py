"""What scrapers are answered: paths, formats, compression, who may."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping

from isal import isal_zlib

from orlop.errors import OrlopError
from orlop.metrics.scraper import Scraper
from orlop.web import Limits, Reply, Request, Token
from orlop.web.token import CHALLENGE

_log = logging.getLogger(__name__)

PATH, CONTAINERDS = "/metrics", "/v1/metrics"
"""The second has what containerd tells in nanoseconds or microseconds that way, too."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# Scrapers come again: who does not read, or says nothing, is not waited for as long as a pull.
LIMITS = Limits(connections=16, patience=10.0, yielding=True)
_LEVEL, _WINDOW = 1, 16 + 15


class MetricsSite:
    """Answers scrapers that have the token, if there is one."""

    def __init__(self, scraper: Scraper, token: Token) -> None:
        self._scraper = scraper
        self._token = token

    def answer(self, request: Request) -> Reply:
        if request.path not in (PATH, CONTAINERDS):
            return self.refuse(404, f"metrics are at {PATH}")
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "metrics can only be read", {"Allow": "GET, HEAD"})
        try:
            if not self._token.admits(request.headers.get("authorization", "")):
                return _refusal(401, "a bearer token is needed", CHALLENGE)
            openmetrics = wants(request.headers.get("accept", ""), "application/openmetrics-text")
            text = self._scraper.text(
                openmetrics=openmetrics, every_unit=request.path == CONTAINERDS
            )
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
