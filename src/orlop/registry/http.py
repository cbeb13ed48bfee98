"""HTTP as registries need it: retries, redirects that keep secrets, an end to every wait."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Protocol

import urllib3
from urllib3 import PoolManager, ProxyManager
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeoutError
from urllib3.util import Url, make_headers, parse_url

from orlop import __version__, tracing
from orlop.errors import Cancelled, InvalidArgument, Unavailable
from orlop.registry.addresses import follow, plain, same_origin
from orlop.registry.failures import connection_error, status_error
from orlop.registry.heads import Dump, request_head, response_head
from orlop.registry.host import DIAL, NO_TLS, Dial, Tls
from orlop.registry.pace import read_whole
from orlop.registry.proxies import SOCKS, Proxies
from orlop.registry.sockets import FilePart, HttpPool, HttpsPool, Sockets
from orlop.registry.tls import context

Response = urllib3.BaseHTTPResponse

USER_AGENT = f"orlop/{__version__}"
_CONNECT, _READ = 15.0, 60.0
_HEADS = 2  # how many times as long as silence the head of a response may take
_ATTEMPTS = 5
_REDIRECTS = 5
_HOSTS = 64  # kept connections, per way of reaching them
_BACKOFF, _BACKOFF_MAX = 0.2, 10.0
_RETRY_AFTER_MAX = 60.0
_STOOD_IN_FOR = 3.0  # seconds of all pauses, where another host can answer instead
_RETRIED = (408, 429)
_SILENT = (NewConnectionError, ProxyError, HTTPTimeoutError)
_REDIRECT_CODES = (301, 302, 303, 307, 308)
_REDIRECT_CODES_OF_POST = (307, 308)  # after the others it would be a GET
# What is not worth a new connection to leave unread.
_DRAIN_MAX = 16 * 1024
_LENGTH_DIGITS = 19  # of a size in 63 bits
# What another host may see of a request: anything else may be a secret.
_PUBLIC_HEADERS = frozenset({"accept", "accept-encoding", "range", "user-agent"})


class Body(Protocol):
    """The body of a request: parts of `size` bytes in all, given anew each time it is iterated."""

    @property
    def size(self) -> int: ...
    def __iter__(self) -> Iterator[FilePart]: ...


class Http:
    """Connections for one job, to any hosts; at most `connections` to each are kept. Thread-safe.

    A host that says nothing, or takes nothing, for `read_limit` seconds counts as one that has
    broken off, and so does one that trickles.

    Use as a context manager, or `close` it.
    """

    def __init__(
        self,
        connections: int = 8,
        proxies: Proxies | None = None,
        *,
        read_limit: float = _READ,
        answered: Callable[[str, str], None] = lambda *_: None,
        dump: Dump | None = None,
    ) -> None:
        """`answered` is told of every request: its host, and the status or "error".

        `dump` gets the heads of requests and responses, without what may be a secret.
        """
        self._answered = answered
        self._dump = dump
        self._read_limit = read_limit
        self._connections = connections
        self._proxies = proxies or Proxies()
        self._sockets = Sockets(read_limit, _HEADS * read_limit)
        self._aborted = threading.Event()
        self._lock = threading.Lock()
        self._managers: dict[tuple[Tls | None, Url | None], PoolManager] = {}

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def abort(self) -> None:
        """End every request, now and from now on, with Cancelled; from any thread, never blocks."""
        self._aborted.set()
        self._sockets.abort()

    def close(self) -> None:
        for manager in self._managers.values():
            manager.clear()
        self._sockets.close()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None = None,
        tls: Tls = NO_TLS,
        dial: Dial = DIAL,
    ) -> Response:
        """Make a request and give its response, whose body is not read yet.

        Connection failures, 408, 429 and 5xx are tried again, with growing pauses or as Retry-After
        says, for as long as `dial` allows; redirects are followed, unless a body would go along, or
        a POST would become a GET. The response's `url` is where they led.
        Raises Unavailable when that does not help, Unauthenticated when another host than the one
        asked wants authorization, and Cancelled after `abort`. `tls` is how the host is trusted,
        `dial` how it is reached.
        """
        asked = url
        sent: Mapping[str, str] = {"User-Agent": USER_AGENT, **headers}
        for _ in range(_REDIRECTS + 1):
            response = self._persist(method, url, sent, body, tls, dial)
            codes = _REDIRECT_CODES_OF_POST if method == "POST" else _REDIRECT_CODES
            moved = response.status in codes and "location" in response.headers
            if response.status == 401 and not same_origin(url, asked):
                # Not the one who was asked: its challenge is none of our credentials' business.
                raise status_error(method, url, response)
            if not moved or body:
                return response
            dispose(response)
            before = url
            url, sent = _redirected(url, response.headers["location"], sent)
            if not same_origin(before, url):
                tls = tls.for_strangers()
        raise Unavailable(f"{method} {plain(url)}: more than {_REDIRECTS} redirects")

    def once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None = None,
        tls: Tls = NO_TLS,
        dial: Dial = DIAL,
    ) -> Response:
        """As `request`, but neither tried again nor redirected, whatever the answer is."""
        try:
            return self._once(method, url, {"User-Agent": USER_AGENT, **headers}, body, tls, dial)
        except HTTPError as error:
            if self._aborted.is_set():
                raise Cancelled from None
            raise connection_error(method, url, error) from error

    def pause(self, seconds: float) -> None:
        """Wait before another try; Cancelled after `abort`."""
        if self._aborted.wait(seconds * random.uniform(0.8, 1.2)):
            raise Cancelled

    def _persist(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        tls: Tls,
        dial: Dial,
    ) -> Response:
        pause, patience = _BACKOFF, _STOOD_IN_FOR if dial.once else math.inf
        for left in reversed(range(_ATTEMPTS)):
            try:
                response = self._once(method, url, headers, body, tls, dial)
            except HTTPError as error:
                if self._aborted.is_set():
                    raise Cancelled from None
                hopeless = isinstance(error, SSLError) or (dial.once and isinstance(error, _SILENT))
                if not left or hopeless:
                    raise connection_error(method, url, error) from error
                wait = pause
            else:
                if not worth_another_try(response):
                    return response
                wait = retry_after(response) or pause
                if not left or wait > patience:
                    raise status_error(method, url, response)
                dispose(response)
            self.pause(wait)
            patience -= wait
            pause = min(pause * 2, _BACKOFF_MAX)
        raise AssertionError

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        tls: Tls,
        dial: Dial,
    ) -> Response:
        if self._aborted.is_set():
            raise Cancelled
        if body is not None and not isinstance(body, bytes):
            headers = {**headers, "Content-Length": str(body.size)}
            body = iter(body)  # type: ignore[assignment]  # which urllib3 takes
        try:
            parts = parse_url(url)
        except LocationParseError:
            raise InvalidArgument(f'"{plain(url)}" is a malformed address') from None
        scheme, host = parts.scheme or "", parts.host or ""
        if scheme not in ("http", "https") or not host:
            raise InvalidArgument(f'"{scheme}://{host}" is not an address of http or https')
        proxy = self._proxies.proxy(scheme, host, parts.port or (443 if scheme == "https" else 80))
        code = "error"
        if self._dump is not None:
            self._dump(request_head(method, url, headers))
        said = {"http.request.method": method, "server.address": host, "url.full": plain(url)}
        with tracing.span(f"HTTP {method}", said, kind=tracing.CLIENT) as span:
            try:
                response = self._manager(tls if scheme == "https" else None, proxy).urlopen(
                    method,
                    url,
                    body=body,
                    headers={**headers, **tracing.headers()},
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    timeout=urllib3.Timeout(
                        connect=dial.timeout or _CONNECT, read=self._read_limit
                    ),
                )
                code = str(response.status)
                span.set({"http.response.status_code": response.status})
                if self._dump is not None:
                    self._dump(response_head(response.status, response.reason, response.headers))
            finally:
                self._answered(parts.netloc or host, code)
        response.url = url
        return response

    def _manager(self, tls: Tls | None, proxy: Url | None) -> PoolManager:
        with self._lock:
            manager = self._managers.get((tls, proxy))
            if manager is None:
                manager = self._managers[tls, proxy] = self._make_manager(tls, proxy)
        return manager

    def _make_manager(self, tls: Tls | None, proxy: Url | None) -> PoolManager:
        options: dict[str, Any] = {
            "num_pools": _HOSTS,
            "maxsize": self._connections,
        }
        if tls is not None:
            options["ssl_context"] = context(tls)
        socks = proxy if proxy is not None and proxy.scheme in SOCKS else None
        if proxy is None or socks is not None:
            manager = PoolManager(**options)
        else:
            if proxy.auth:
                options["proxy_headers"] = make_headers(proxy_basic_auth=proxy.auth)
            manager = ProxyManager(proxy.url, **options)
        pools: dict[str, Any] = {"http": HttpPool, "https": HttpsPool}
        classes: Any = {
            key: partial(pool, sockets=self._sockets, socks=socks) for key, pool in pools.items()
        }
        manager.pool_classes_by_scheme = classes
        return manager


def dispose(response: Response) -> None:
    """Let go of a response; its connection is used again when little of it is left to read."""
    try:
        read_whole(response, _DRAIN_MAX)
    except HTTPError:
        pass
    response.close()


def _redirected(
    url: str, location: str, headers: Mapping[str, str]
) -> tuple[str, Mapping[str, str]]:
    """Where a redirect goes, and with which headers: secrets are for who asked for them."""
    target = follow(url, location)
    if not same_origin(url, target):
        headers = {key: value for key, value in headers.items() if key.lower() in _PUBLIC_HEADERS}
    return target, headers


def worth_another_try(response: Response) -> bool:
    """Whether the same request may well succeed later."""
    return response.status in _RETRIED or response.status >= 500


def content_length(response: Response) -> int | None:
    """How long the body is said to be, None when that is not said in a number one can believe."""
    text = response.headers.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) <= _LENGTH_DIGITS else None


def retry_after(response: Response) -> float:
    """Seconds of a Retry-After header, 0 without a usable one (RFC 9110, 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, min(seconds, _RETRY_AFTER_MAX))
