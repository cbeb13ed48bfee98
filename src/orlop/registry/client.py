"""Pull from one repository of a registry (OCI distribution spec 1.1, "Pull")."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from orlop.errors import (
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
)
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.oci.reference import Reference
from orlop.registry import listing
from orlop.registry.addresses import split
from orlop.registry.auth import Ask
from orlop.registry.download import Download
from orlop.registry.host import Capability, Host, default_host
from orlop.registry.http import Http, Response, content_length, dispose
from orlop.registry.repository import Repository, asked_once
from orlop.registry.sources import Silence, Sources, in_turn
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

_URLS_MAX = 8  # of one descriptor

T = TypeVar("T")


class RegistryClient:
    """What a reference names. `ask` is asked for credentials when they are wanted.

    `hosts` serve it, the first that can is asked first (see `orlop.registry.hosts_toml`); without
    any it is the registry itself, by `scheme` http or https ("" as in `default_host`, which may ask
    it), with `headers` on every request to it, and to it alone. Clients that share a `silence`
    share the memory of who does not answer. Thread-safe; `http` is the caller's to close.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        http: Http,
        hosts: Sequence[Host] = (),
        scheme: str = "",
        ask: Ask | None = None,
        headers: Mapping[str, str] | None = None,
        silence: Silence | None = None,
    ) -> None:
        self.reference = reference
        self._http = http
        self._ask = ask
        self._hosts = list(hosts) or [default_host(reference.host, scheme, headers)]
        self._silence = silence or Silence()
        self._repositories = [
            Repository(host, reference.path, http=http, ask=ask) for host in self._hosts
        ]
        self._lock = threading.Lock()
        self._blobs: dict[str, Sources] = {}

    def abort(self) -> None:
        """End every request, now and from now on, with Cancelled; from any thread."""
        self._http.abort()

    def sibling(self, *, tag: str = "", digest: str = "") -> RegistryClient:
        """Another tag or digest of the same repository, on the same hosts."""
        wanted = self.reference._replace(tag=tag, digest=digest)
        return RegistryClient(
            wanted, http=self._http, hosts=self._hosts, ask=self._ask, silence=self._silence
        )

    def repository(self, actions: str = "pull") -> Repository:
        """The repository on the first host that is the registry itself, not a mirror of it.

        For what is not fetched by digest: see `orlop.registry.listing`.
        """
        host = next((each for each in self._hosts if not each.namespace), self._hosts[-1])
        return Repository(
            host, self.reference.path, http=self._http, ask=self._ask, actions=actions
        )

    def uploads(self) -> Uploads:
        """The way into the repository, on the first host that takes pushes.

        Raises FailedPrecondition when there is none.
        """
        for host in self._hosts:
            if Capability.PUSH in host.capabilities:
                repository = Repository(
                    host, self.reference.path, http=self._http, ask=self._ask, actions="pull,push"
                )
                return Uploads(repository)
        raise FailedPrecondition(
            f'no host is configured to take pushes for registry "{self.reference.host}"'
        )

    def resolve(self) -> Descriptor:
        """What the reference names: media type, digest and size.

        Raises NotFound for an unknown repository, tag or digest.
        """
        wanted = self.reference.object
        if not wanted:
            raise InvalidArgument(f'reference "{self.reference}" has neither tag nor digest')
        capability = Capability.PULL if self.reference.digest else Capability.RESOLVE
        return self._try(capability, lambda repository: self._resolve(repository, wanted))

    def _resolve(self, repository: Repository, wanted: str) -> Descriptor:
        url = repository.url(f"/manifests/{wanted}")
        response = repository.send("HEAD", url, {"Accept": _ACCEPT})
        dispose(response)
        digest = response.headers.get("docker-content-digest", "")
        length = content_length(response)
        media_type = _media_type(response)
        if response.status != 200 or not digest or length is None or not media_type:
            return self._resolve_by_get(repository, url)
        Digest.parse(digest)
        return self._checked(Descriptor(media_type=media_type, digest=digest, size=length))

    def _resolve_by_get(self, repository: Repository, url: str) -> Descriptor:
        """For a registry whose HEAD does not tell: the document itself does, or the error."""
        try:
            response, body = repository.document(url, _ACCEPT)
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
        accept = wanted.media_type if is_manifest else "*/*"

        def fetch(repository: Repository) -> bytes:
            url = repository.url(f"/{kind}/{wanted.digest}")
            _, body = repository.document(url, accept, wanted.size)
            _verify(wanted, body)
            return body

        return self._try(Capability.PULL, fetch)

    def open_blob(self, wanted: Descriptor, offset: int = 0) -> Download:
        """The bytes of a blob from `offset` on; not verified, which is the receiver's to do."""
        return Download(self._sources(wanted), wanted, offset)

    def spoiled(self, wanted: Descriptor) -> bool:
        """What `open_blob` gave was not the blob: whoever sent it is not asked for it again.

        Returns whether there is somebody else to ask.
        """
        return self._sources(wanted).spoiled()

    def _sources(self, wanted: Descriptor) -> Sources:
        with self._lock:
            found = self._blobs.get(wanted.digest)
            if found is None:
                found = self._blobs[wanted.digest] = Sources(self._places(wanted), self._silence)
            return found

    def _places(self, wanted: Descriptor) -> dict[Repository, str]:
        """The addresses of a blob; those that its descriptor names come first, for a layer that
        registries do not have, and count for no other."""
        able = self._able(Capability.PULL)
        own = {each: each.url(f"/blobs/{wanted.digest}") for each in able}
        if mediatypes.is_non_distributable(wanted.media_type):
            return dict(self._elsewhere(wanted)) | own
        return own

    def _elsewhere(self, wanted: Descriptor) -> Iterator[tuple[Repository, str]]:
        """Where a descriptor says that its blob is. What is for the registry does not go there,
        and nobody is led from TLS to plain HTTP."""
        schemes = ("https",) if self._hosts[-1].secure else ("https", "http")
        for url in wanted.urls[:_URLS_MAX]:
            parts = split(url)
            if parts is None or parts.scheme not in schemes:
                continue
            if parts.hostname and "@" not in parts.netloc:
                host = Host(parts.scheme, parts.netloc, prefix="")
                yield Repository(host, "", http=self._http), url

    def _able(self, capability: Capability) -> list[Repository]:
        able = [each for each in self._repositories if capability in each.host.capabilities]
        if not able:
            raise FailedPrecondition(
                f'no host is configured to {capability.name} from registry "{self.reference.host}"'
            )
        return able

    def referrers(self, digest: str) -> Iterator[list[Descriptor]]:
        """The manifests whose subject is the manifest `digest`, those of one host after the other:
        none need know all of them, and the next is asked when it is its turn.

        What hosts answered instead is raised at the end.
        """
        failures: list[OrlopError] = []
        kinds = Capability.REFERRERS | Capability.RESOLVE
        able = [each for each in self._repositories if kinds & each.host.capabilities]
        turn = sorted(able, key=lambda each: each.host in self._silence)
        for repository in turn:
            silent = repository.host in self._silence
            try:
                with asked_once(len(turn) > 1 and (silent or repository is not turn[-1])):
                    found = listing.referrers(repository, digest)
            except (Cancelled, DeadlineExceeded):
                raise
            except OrlopError as error:
                failures.append(error)
            else:
                yield found
        if failures:
            raise type(failures[-1])("; ".join(each.message for each in failures))

    def _try(self, capability: Capability, do: Callable[[Repository], T]) -> T:
        return in_turn(self._able(capability), self._silence, do)


def _verify(wanted: Descriptor, body: bytes) -> None:
    if len(body) != wanted.size:
        found = f"{len(body)}" if len(body) < wanted.size else "more"
        raise DataLoss(f"{wanted.digest} has {found} bytes, {wanted.size} were announced")
    digest = Digest.of(body, Digest.parse(wanted.digest).algorithm)
    if digest != wanted.digest:
        raise DataLoss(f"{wanted.digest} came with other content, whose digest is {digest}")


def _media_type(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip()
