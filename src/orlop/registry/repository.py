"""One repository on one host: requests to it, with the authorization that it wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from urllib3.exceptions import HTTPError

from orlop.errors import InvalidArgument, Unavailable
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.registry.addresses import plain, same_origin
from orlop.registry.auth import Ask, Authorizer
from orlop.registry.failures import status_error
from orlop.registry.host import Dial, Host
from orlop.registry.http import Body, Http, Response, dispose
from orlop.registry.pace import read_whole

_TRIES = 3
_once = ContextVar("once", default=False)


@contextmanager
def asked_once(once: bool = True) -> Iterator[None]:
    """Within it hosts are asked as those that another can stand in for: see `Dial`."""
    token = _once.set(once)
    try:
        yield
    finally:
        _once.reset(token)


class Repository:
    """The repository `path` on `host`. `actions` is what authorization is wanted for.

    Without a path it is the registry as a whole, of which only `/v2/` itself is to be had.

    Thread-safe; `http` is the caller's to close.
    """

    def __init__(
        self,
        host: Host,
        path: str,
        *,
        http: Http,
        ask: Ask | None = None,
        actions: str = "pull",
    ) -> None:
        self.host = host
        self.path = path
        self.http = http
        self._authorizer = Authorizer(
            host.name,
            f"repository:{path}:{actions}" if path else "",
            ask,
            self._get_token,
            secure=host.secure,
        )

    @property
    def _dial(self) -> Dial:
        return Dial(self.host.dial_timeout, once=_once.get())

    def url(self, path: str) -> str:
        """The address of `/blobs/…`, `/manifests/…` and so on."""
        return self.host.url(f"/{self.path}{path}")

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """As `send`; a status of 300 or more is an error that says what the registry says."""
        response = self.send(method, url, headers, body)
        if response.status >= 300:
            raise status_error(method, url, response)
        return response

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """A request with authorization, which is found out on the first 401; see `Http.request`."""
        return self._authorized(self.http.request, method, url, headers, body)

    def send_once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None = None
    ) -> Response:
        """A request with authorization that is not tried again; see `Http.once`."""
        return self._authorized(self.http.once, method, url, headers, body)

    def _authorized(
        self,
        ask: Callable[..., Response],
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
    ) -> Response:
        if not same_origin(url, self.host.url("")):
            # An upload may go on elsewhere, without secrets.
            return ask(method, url, headers, body, self.host.tls.for_strangers(), self._dial)
        sent = {**self.host.headers, **headers}
        if authorization := self._authorizer.header():
            sent["Authorization"] = authorization
        response = ask(method, url, sent, body, self.host.tls, self._dial)
        if response.status != 401:
            return response
        dispose(response)
        challenge = response.headers.get("www-authenticate", "")
        self._authorizer.answer(challenge, authorization)
        sent["Authorization"] = self._authorizer.header()
        return ask(method, url, sent, body, self.host.tls, self._dial)

    def document(self, url: str, accept: str, limit: int = DOCUMENT_MAX) -> tuple[Response, bytes]:
        """A response and its whole body, which may be one byte longer than `limit`."""
        for left in reversed(range(_TRIES)):
            response = self.request("GET", url, {"Accept": accept})
            try:
                body = read_whole(response, limit + 1)
            except HTTPError as error:
                if not left:
                    raise Unavailable(f"GET {plain(url)} broke off: {error}") from error
            else:
                if len(body) > DOCUMENT_MAX:
                    raise InvalidArgument(f"GET {plain(url)}: longer than {DOCUMENT_MAX} bytes")
                return response, body
            finally:
                response.close()
        raise AssertionError

    def _get_token(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> bytes:
        tls = self.host.tls
        if not same_origin(url, self.host.url("")):
            tls = tls.for_strangers()
        response = self.http.request(method, url, headers, body, tls, self._dial)
        if response.status >= 300:
            raise status_error(method, url, response)
        try:
            return read_whole(response, DOCUMENT_MAX)
        except HTTPError as error:
            raise Unavailable(f"{method} {plain(url)} broke off: {error}") from error
        finally:
            response.close()
