"""Pull from one repository of a registry (OCI distribution spec 1.1, "Pull")."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from urllib3.exceptions import HTTPError

from orlop.errors import DataLoss, InvalidArgument, NotFound, Unavailable
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.oci.reference import Reference
from orlop.registry.auth import Ask, Authorizer
from orlop.registry.blob import BlobStream
from orlop.registry.failures import plain, status_error
from orlop.registry.http import Http, Response, dispose

_ACCEPT = ", ".join(
    (
        mediatypes.OCI_INDEX,
        mediatypes.OCI_MANIFEST,
        mediatypes.DOCKER_INDEX,
        mediatypes.DOCKER_MANIFEST,
        "*/*",
    )
)
_API_HOSTS = {"docker.io": "registry-1.docker.io"}
_SCHEMES = ("", "http", "https")
_TRIES = 3


class RegistryClient:
    """One repository, named by a reference. `ask` is asked for credentials when they are wanted.

    `scheme` is http or https; "" means http for localhost and https for all others. `headers` go
    with every request to the registry, and to it alone. Thread-safe; `http` is the caller's to
    close.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        http: Http,
        scheme: str = "",
        ask: Ask | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if scheme not in _SCHEMES:
            raise InvalidArgument(f'scheme "{scheme}" is neither http nor https')
        self.reference = reference
        self._http = http
        self._headers = dict(headers or {})
        host = _API_HOSTS.get(reference.host, reference.host)
        scheme = scheme or ("http" if _is_local(host) else "https")
        self._base = f"{scheme}://{host}/v2/{reference.path}"
        scope = f"repository:{reference.path}:pull"
        self._authorizer = Authorizer(
            reference.host, scope, ask, self._get_token, secure=scheme == "https"
        )

    def abort(self) -> None:
        """End every request, now and from now on, with Cancelled; from any thread."""
        self._http.abort()

    def resolve(self) -> Descriptor:
        """What the reference names: media type, digest and size.

        Raises NotFound for an unknown repository, tag or digest.
        """
        wanted = self.reference.object
        if not wanted:
            raise InvalidArgument(f'reference "{self.reference}" has neither tag nor digest')
        url = f"{self._base}/manifests/{wanted}"
        response = self._authorized("HEAD", url, {"Accept": _ACCEPT})
        dispose(response)
        digest = response.headers.get("docker-content-digest", "")
        length = response.headers.get("content-length", "")
        media_type = _media_type(response)
        if response.status != 200 or not digest or not length.isdecimal() or not media_type:
            return self._resolve_by_get(url)
        Digest.parse(digest)
        return self._checked(Descriptor(media_type=media_type, digest=digest, size=int(length)))

    def _resolve_by_get(self, url: str) -> Descriptor:
        """For a registry whose HEAD does not tell: the document itself does, or the error."""
        try:
            response, body = self._get_document(url, _ACCEPT, DOCUMENT_MAX)
        except NotFound as error:
            raise NotFound(f'image "{self.reference}": {error.message}') from error
        wanted = self.reference.digest
        digest = Digest.of(body, Digest(wanted).algorithm if wanted else "sha256")
        return self._checked(
            Descriptor(media_type=_media_type(response), digest=digest, size=len(body))
        )

    def _checked(self, found: Descriptor) -> Descriptor:
        if self.reference.digest and found.digest != self.reference.digest:
            raise DataLoss(f'registry answers "{self.reference}" with digest {found.digest}')
        return found

    def fetch_document(self, wanted: Descriptor) -> bytes:
        """A manifest, index or config, verified; DataLoss when it is not what was named."""
        if wanted.size > DOCUMENT_MAX:
            raise InvalidArgument(f"{wanted.digest} of {wanted.size} bytes is too large to parse")
        is_manifest = wanted.media_type in mediatypes.INDEXES | mediatypes.MANIFESTS
        kind = "manifests" if is_manifest else "blobs"
        url = f"{self._base}/{kind}/{wanted.digest}"
        _, body = self._get_document(url, wanted.media_type if is_manifest else "*/*", wanted.size)
        _verify(wanted, body)
        return body

    def open_blob(self, wanted: Descriptor, offset: int = 0) -> BlobStream:
        """The bytes of a blob from `offset` on; not verified, which is the receiver's to do."""
        url = f"{self._base}/blobs/{wanted.digest}"
        return BlobStream(lambda headers: self._request("GET", url, headers), wanted, offset)

    def _get_document(self, url: str, accept: str, limit: int) -> tuple[Response, bytes]:
        """A response and its whole body, which may be one byte longer than `limit`."""
        for left in reversed(range(_TRIES)):
            response = self._request("GET", url, {"Accept": accept})
            try:
                body = response.read(limit + 1)
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

    def _request(self, method: str, url: str, headers: dict[str, str]) -> Response:
        response = self._authorized(method, url, headers)
        if response.status >= 300:
            raise status_error(method, url, response)
        return response

    def _authorized(self, method: str, url: str, headers: dict[str, str]) -> Response:
        """A request with authorization, which is found out on the first 401."""
        sent = {**self._headers, **headers}
        if authorization := self._authorizer.header():
            sent["Authorization"] = authorization
        response = self._http.request(method, url, sent)
        if response.status != 401:
            return response
        dispose(response)
        challenge = response.headers.get("www-authenticate", "")
        self._authorizer.answer(challenge, authorization)
        sent["Authorization"] = self._authorizer.header()
        return self._http.request(method, url, sent)

    def _get_token(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> bytes:
        response = self._http.request(method, url, headers, body)
        if response.status >= 300:
            raise status_error(method, url, response)
        try:
            return response.read(DOCUMENT_MAX)
        except HTTPError as error:
            raise Unavailable(f"{method} {plain(url)} broke off: {error}") from error
        finally:
            response.close()


def _verify(wanted: Descriptor, body: bytes) -> None:
    if len(body) != wanted.size:
        found = f"{len(body)}" if len(body) < wanted.size else "more"
        raise DataLoss(f"{wanted.digest} has {found} bytes, {wanted.size} were announced")
    digest = Digest.of(body, Digest.parse(wanted.digest).algorithm)
    if digest != wanted.digest:
        raise DataLoss(f"{wanted.digest} came with other content, whose digest is {digest}")


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _media_type(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip()
