"""HTTP as registries need it: retries, redirects that keep secrets, errors that say what failed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from orlop import __version__
from orlop.errors import (
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unknown,
)

Response = urllib3.BaseHTTPResponse

USER_AGENT = f"orlop/{__version__}"
_CONNECT, _READ = 15.0, 60.0
_ATTEMPTS = 5
_REDIRECTS = 5
_BACKOFF_MAX = 10.0
_RETRY_AFTER_MAX = 60.0
_ERROR_BODY = 4096
_REDIRECT_CODES = (301, 302, 303, 307, 308)


class Http:
    """A pool of connections. `check` is called before each attempt and may raise to give up."""

    def __init__(self, check: Callable[[], None] = lambda: None, connections: int = 8) -> None:
        self._check = check
        self._pool = urllib3.PoolManager(
            num_pools=8,
            maxsize=connections,
            timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
            retries=False,
        )

    def close(self) -> None:
        self._pool.clear()

    def request(self, method: str, url: str, headers: Mapping[str, str]) -> Response:
        """Make a request and give its response, whose body is not read yet.

        Connection failures, 429 and 5xx are tried again, with growing pauses or as Retry-After
        says; redirects are followed. Raises Unavailable when that does not help.
        """
        pause = 0.2
        for attempt in range(1, _ATTEMPTS + 1):
            self._check()
            try:
                response = self._follow(method, url, headers)
            except HTTPError as error:
                if attempt == _ATTEMPTS or isinstance(error, SSLError):
                    raise _connection_error(method, url, error) from error
                wait = pause
            else:
                if response.status != 429 and response.status < 500:
                    return response
                if attempt == _ATTEMPTS:
                    raise status_error(method, url, response)
                wait = _retry_after(response) or pause
                response.drain_conn()
                response.release_conn()
            self._sleep(wait * random.uniform(0.8, 1.2))
            pause = min(pause * 2, _BACKOFF_MAX)
        raise Unavailable(f"{method} {url}")

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, 0.1))

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> Response:
        sent = {"User-Agent": USER_AGENT, **headers}
        for _ in range(_REDIRECTS + 1):
            response = self._pool.request(
                method, url, headers=sent, redirect=False, preload_content=False
            )
            if response.status not in _REDIRECT_CODES or "location" not in response.headers:
                return response
            target = urljoin(url, response.headers["location"])
            response.drain_conn()
            response.release_conn()
            sent = _headers_for(url, target, sent)
            url = target
        raise Unavailable(f"{method} {url}: more than {_REDIRECTS} redirects")


def _headers_for(url: str, target: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Credentials are for the host that asked for them; and never go from TLS to plain."""
    before, after = urlsplit(url), urlsplit(target)
    if after.scheme not in ("http", "https") or (before.scheme, after.scheme) == ("https", "http"):
        raise Unavailable(f'"{url}" redirects to "{target}", which is not safe to follow')
    if (before.scheme, before.netloc) == (after.scheme, after.netloc):
        return dict(headers)
    return {key: value for key, value in headers.items() if key.lower() != "authorization"}


def _retry_after(response: Response) -> float:
    """Seconds of a Retry-After header, 0 without a usable one (RFC 9110, 10.2.3)."""
    text = response.headers.get("retry-after", "")
    return min(float(text), _RETRY_AFTER_MAX) if text.isdecimal() else 0.0


def _connection_error(method: str, url: str, error: HTTPError) -> OrlopError:
    host = urlsplit(url).netloc
    if isinstance(error, SSLError) and "WRONG_VERSION" in str(error).upper():
        return Unavailable(f'registry "{host}" does not speak TLS; is it to be used by plain HTTP?')
    return Unavailable(f'registry "{host}" does not answer: {method} {url}: {_reason(error)}')


def _reason(error: BaseException) -> str:
    """The innermost cause, without the object addresses that urllib3 prints."""
    text = str(error)
    return text.rpartition(">: ")[2] if ">: " in text else text


def status_error(method: str, url: str, response: Response) -> OrlopError:
    """The error for an unexpected status; the registry's own words are part of it."""
    detail = response.read(_ERROR_BODY).decode(errors="replace").strip().replace("\n", " ")
    response.release_conn()
    text = f"{method} {url}: status {response.status}" + (f": {detail}" if detail else "")
    kinds: dict[int, type[OrlopError]] = {
        400: InvalidArgument,
        401: Unauthenticated,
        403: PermissionDenied,
        404: NotFound,
        429: Unavailable,
    }
    kind = kinds.get(response.status, Unavailable if response.status >= 500 else Unknown)
    return kind(text)
