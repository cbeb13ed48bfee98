"""Pull from one repository of a registry (OCI distribution spec 1.1, "Pull")."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

from urllib3.exceptions import HTTPError

from orlop.errors import DataLoss, InvalidArgument, NotFound, Unavailable
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.oci.reference import Reference
from orlop.registry.auth import Ask, Authorizer
from orlop.registry.http import Http, Response, status_error

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
_CHUNK = 512 * 1024
_RESUMES = 5


class RegistryClient:
    """One repository, named by a reference. `ask` is asked for credentials when they are wanted.

    Plain HTTP is used for localhost, and where `plain_http` says so. Thread-safe.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        http: Http,
        plain_http: bool = False,
        ask: Ask | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.reference = reference
        self._http = http
        self._headers = dict(headers or {})
        host = _API_HOSTS.get(reference.host, reference.host)
        scheme = "http" if plain_http or _is_local(host) else "https"
        self._base = f"{scheme}://{host}/v2/{reference.path}"
        self._authorizer = Authorizer(
            reference.host, f"repository:{reference.path}:pull", ask, self._get_token
        )

    def resolve(self) -> Descriptor:
        """What the reference names: media type, digest and size.

        Raises NotFound for an unknown repository, tag or digest.
        """
        wanted = self.reference.object
        if not wanted:
            raise InvalidArgument(f'reference "{self.reference}" has neither tag nor digest')
        url = f"{self._base}/manifests/{wanted}"
        response = self._request("HEAD", url, {"Accept": _ACCEPT}, allow=(404, 405))
        response.drain_conn()
        response.release_conn()
        if response.status == 404:
            raise NotFound(f'image "{self.reference}" on registry "{self.reference.host}"')
        digest = response.headers.get("docker-content-digest", "")
        length = response.headers.get("content-length", "")
        media_type = _media_type(response)
        if response.status == 405 or not digest or not length.isdecimal() or not media_type:
            return self._resolve_by_get(url)
        Digest.parse(digest)
        return self._checked(Descriptor(media_type=media_type, digest=digest, size=int(length)))

    def _resolve_by_get(self, url: str) -> Descriptor:
        """For a registry whose HEAD does not tell: the document itself does."""
        response = self._request("GET", url, {"Accept": _ACCEPT})
        body = _read_document(response, url)
        return self._checked(
            Descriptor(media_type=_media_type(response), digest=Digest.of(body), size=len(body))
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
        response = self._request(
            "GET", url, {"Accept": wanted.media_type if is_manifest else "*/*"}
        )
        body = _read_document(response, url)
        verify(wanted, len(body), Digest.of(body, Digest.parse(wanted.digest).algorithm))
        return body

    def open_blob(self, wanted: Descriptor, offset: int = 0) -> BlobStream:
        """The bytes of a blob from `offset` on; not verified, which is the receiver's to do."""
        return BlobStream(self, wanted, offset)

    def request_blob(self, wanted: Descriptor, offset: int) -> Response:
        """The response whose body is the blob from `offset` on (for `BlobStream`)."""
        url = f"{self._base}/blobs/{wanted.digest}"
        # A layer's own compression is its content; no other is wanted.
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response = self._request("GET", url, headers)
        if offset and response.status != 206:
            _skip(response, offset, url)
        return response

    def _request(
        self, method: str, url: str, headers: dict[str, str], allow: tuple[int, ...] = ()
    ) -> Response:
        """A request with authorization, found out on the first 401."""
        for attempt in range(2):
            sent = {**self._headers, **headers}
            if authorization := self._authorizer.header():
                sent["Authorization"] = authorization
            response = self._http.request(method, url, sent)
            if response.status != 401 or attempt:
                break
            challenge = response.headers.get("www-authenticate", "")
            response.drain_conn()
            response.release_conn()
            self._authorizer.answer(challenge)
        if response.status >= 300 and response.status not in allow:
            raise status_error(method, url, response)
        return response

    def _get_token(self, realm: str, query: dict[str, str], authorization: str) -> bytes:
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        headers = {"Authorization": authorization} if authorization else {}
        response = self._http.request("GET", url, headers)
        if response.status >= 300:
            raise status_error("GET", realm, response)
        return _read_document(response, realm)


class BlobStream:
    """A blob's bytes as they come; a broken connection is taken up where it broke."""

    def __init__(self, client: RegistryClient, wanted: Descriptor, offset: int) -> None:
        self._client = client
        self._wanted = wanted
        self._offset = offset
        self._response: Response | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Chunks up to the blob's size. Raises Unavailable when it breaks off too often."""
        failures = 0
        while self._offset < self._wanted.size:
            try:
                chunk = self._read()
            except HTTPError as error:
                self.close()
                failures += 1
                if failures > _RESUMES:
                    raise Unavailable(
                        f"download of {self._wanted.digest} broke off {failures} times, "
                        f"last at {self._offset} of {self._wanted.size} bytes: {error}"
                    ) from error
                continue
            if self._offset + len(chunk) > self._wanted.size:
                raise DataLoss(
                    f"{self._wanted.digest} is longer than the {self._wanted.size} bytes announced"
                )
            self._offset += len(chunk)
            yield chunk

    def _read(self) -> bytes:
        if self._response is None:
            self._response = self._client.request_blob(self._wanted, self._offset)
        # read1 gives what has come, so that nothing of a connection that breaks is lost.
        chunk = self._response.read1(_CHUNK)
        if not chunk:
            raise HTTPError("connection ended early")
        return chunk

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def verify(wanted: Descriptor, size: int, digest: str) -> None:
    """Raise DataLoss unless size and digest are those of the descriptor."""
    if size != wanted.size:
        raise DataLoss(f"{wanted.digest} has {size} bytes, {wanted.size} were announced")
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


def _read_document(response: Response, url: str) -> bytes:
    try:
        body = response.read(DOCUMENT_MAX + 1)
    except HTTPError as error:
        raise Unavailable(f"GET {url} broke off: {error}") from error
    response.release_conn()
    if len(body) > DOCUMENT_MAX:
        raise InvalidArgument(f"GET {url}: answer is longer than {DOCUMENT_MAX} bytes")
    return body


def _skip(response: Response, count: int, url: str) -> None:
    """For a registry that ignores Range: read past what we have."""
    while count:
        chunk = response.read(min(count, _CHUNK))
        if not chunk:
            raise Unavailable(f"GET {url} is shorter than what was fetched before")
        count -= len(chunk)
