"""Pull from one repository of a registry (OCI distribution spec 1.1, "Pull")."""

from __future__ import annotations

from collections.abc import Mapping

from orlop.errors import DataLoss, InvalidArgument, NotFound
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.oci.reference import Reference
from orlop.registry.auth import Ask
from orlop.registry.blob import BlobStream
from orlop.registry.host import default_host
from orlop.registry.http import Http, Response, dispose
from orlop.registry.repository import Repository
from orlop.registry.upload import Uploads

_ACCEPT = ", ".join(
    (
        mediatypes.OCI_INDEX,
        mediatypes.OCI_MANIFEST,
        mediatypes.DOCKER_INDEX,
        mediatypes.DOCKER_MANIFEST,
        "*/*",
    )
)


class RegistryClient:
    """What a reference names. `ask` is asked for credentials when they are wanted.

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
        self.reference = reference
        self._http = http
        self._ask = ask
        self._host = default_host(reference.host, scheme, headers)
        self._repository = Repository(self._host, reference.path, http=http, ask=ask)

    def abort(self) -> None:
        """End every request, now and from now on, with Cancelled; from any thread."""
        self._http.abort()

    def uploads(self) -> Uploads:
        """The way into the repository."""
        repository = Repository(
            self._host, self.reference.path, http=self._http, ask=self._ask, actions="pull,push"
        )
        return Uploads(repository)

    def resolve(self) -> Descriptor:
        """What the reference names: media type, digest and size.

        Raises NotFound for an unknown repository, tag or digest.
        """
        wanted = self.reference.object
        if not wanted:
            raise InvalidArgument(f'reference "{self.reference}" has neither tag nor digest')
        url = self._repository.url(f"/manifests/{wanted}")
        response = self._repository.send("HEAD", url, {"Accept": _ACCEPT})
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
            response, body = self._repository.document(url, _ACCEPT, DOCUMENT_MAX)
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
        url = self._repository.url(f"/{kind}/{wanted.digest}")
        _, body = self._repository.document(
            url, wanted.media_type if is_manifest else "*/*", wanted.size
        )
        _verify(wanted, body)
        return body

    def open_blob(self, wanted: Descriptor, offset: int = 0) -> BlobStream:
        """The bytes of a blob from `offset` on; not verified, which is the receiver's to do."""
        url = self._repository.url(f"/blobs/{wanted.digest}")
        return BlobStream(
            lambda headers: self._repository.request("GET", url, headers), wanted, offset
        )


def _verify(wanted: Descriptor, body: bytes) -> None:
    if len(body) != wanted.size:
        found = f"{len(body)}" if len(body) < wanted.size else "more"
        raise DataLoss(f"{wanted.digest} has {found} bytes, {wanted.size} were announced")
    digest = Digest.of(body, Digest.parse(wanted.digest).algorithm)
    if digest != wanted.digest:
        raise DataLoss(f"{wanted.digest} came with other content, whose digest is {digest}")


def _media_type(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip()
