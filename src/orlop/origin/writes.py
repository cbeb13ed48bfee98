"""Replies to what changes something (OCI distribution spec, "Push", "Content Management")."""

from __future__ import annotations

import re
from urllib.parse import quote

from orlop.errors import InvalidArgument
from orlop.oci import reference
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.origin.exchange import Refusal
from orlop.origin.offers import Offers
from orlop.origin.pushes import Pushes
from orlop.origin.repositories import Repositories, Repository
from orlop.origin.uploads import Uploads, parse_digest, range_of
from orlop.web import Reply, Request

_CONTENT_RANGE = re.compile(r"(?:bytes )?([0-9]{1,19})-([0-9]{1,19})(?:/(?:[0-9]{1,19}|\*))?")


class Writes:
    """Uploads, manifests and deletions; all of them concern this registry's own repositories."""

    def __init__(
        self, repositories: Repositories, offers: Offers, uploads: Uploads, pushes: Pushes
    ) -> None:
        self._repositories = repositories
        self._offers = offers
        self._uploads = uploads
        self._pushes = pushes

    def close(self) -> None:
        self._uploads.close()

    def begin(self, request: Request, name: str) -> Reply:
        repository = self._own(request, name)
        mount = request.query.get("mount", "")
        if mount and self._mount(repository, parse_digest(mount), request.query.get("from", "")):
            return _created_blob(name, mount)
        session = self._uploads.begin(repository)
        digest = request.query.get("digest", "")
        if not digest:
            return _progress(name, session, 0, 202)
        self._uploads.finish(repository, session, request.body, parse_digest(digest), None)
        return _created_blob(name, digest)

    def _mount(self, repository: str, digest: str, source: str) -> bool:
        """Whether the blob is in the other repository, and now in this one as well."""
        if not source or self._offers.blob(source, "", digest) is None:
            return False
        return self._uploads.mount(repository, digest)

    def status(self, request: Request, name: str, session: str) -> Reply:
        offset = self._uploads.offset(self._own(request, name), session)
        return _progress(name, session, offset, 204)

    def append(self, request: Request, name: str, session: str) -> Reply:
        repository = self._own(request, name)
        start = _start(request)
        offset = self._uploads.append(repository, session, request.body, start)
        return _progress(name, session, offset, 202)

    def finish(self, request: Request, name: str, session: str) -> Reply:
        repository = self._own(request, name)
        digest = parse_digest(request.query.get("digest", ""))
        self._uploads.finish(repository, session, request.body, digest, _start(request))
        return _created_blob(name, digest)

    def cancel(self, request: Request, name: str, session: str) -> Reply:
        self._uploads.cancel(self._own(request, name), session)
        return Reply(204)

    def put_manifest(self, request: Request, name: str, wanted: str) -> Reply:
        tag, digest = self._tag_or_digest(request, name, wanted)
        data = request.body.read(DOCUMENT_MAX)
        if data is None:
            raise Refusal(
                413, "SIZE_INVALID", f"a manifest may have {DOCUMENT_MAX} bytes, not more"
            )
        own = self._repositories.own
        document = self._pushes.put(
            self._repositories.find(name, own),
            data,
            request.headers.get("content-type", "").partition(";")[0].strip().lower(),
            # What a client sees in the repository by this name, it need not send again.
            lambda each: any(self._offers.blob(name, host, each) for host in ("", own)),
            tag=tag,
            digest=digest,
        )
        stored = document.descriptor.digest
        headers = {"Location": _place(name, "manifests", stored), "Docker-Content-Digest": stored}
        if document.subject:
            headers["OCI-Subject"] = document.subject
        return Reply(201, headers)

    def delete_manifest(self, request: Request, name: str, wanted: str) -> Reply:
        tag, digest = self._tag_or_digest(request, name, wanted)
        own = self._repositories.find(name, self._repositories.own)
        shown = self._repositories.find(name)
        if not own.targets and shown.targets:
            raise _denied(shown)
        self._pushes.delete(own, tag=tag, digest=digest)
        return Reply(202)

    def _own(self, request: Request, name: str) -> str:
        """The full name of this registry's repository; refuses a push in another host's name."""
        own = self._repositories.own
        host = request.query.get("ns", "")
        if host not in ("", own):
            raise Refusal(403, "DENIED", f'this registry takes images of "{own}", not of "{host}"')
        try:
            return reference.parse(f"{own}/{name}").repository
        except InvalidArgument as error:
            raise Refusal(400, "NAME_INVALID", error.message) from None

    def _tag_or_digest(self, request: Request, name: str, wanted: str) -> tuple[str, str]:
        repository = self._own(request, name)
        if ":" in wanted:
            return "", parse_digest(wanted)
        try:
            return reference.parse(f"{repository}:{wanted}").tag, ""
        except InvalidArgument as error:
            raise Refusal(400, "TAG_INVALID", error.message) from None


def _denied(repository: Repository) -> Refusal:
    return Refusal(
        403, "DENIED", f'"{repository.name}" was pulled by this node and is not changed from afar'
    )


def _start(request: Request) -> int | None:
    """Where the body of an upload goes, by its Content-Range; None where there is none."""
    text = request.headers.get("content-range")
    if text is None:
        return None
    found = _CONTENT_RANGE.fullmatch(text)
    length = request.body.length
    if found is None or (length >= 0 and int(found[2]) + 1 - int(found[1]) != length):
        raise Refusal(400, "SIZE_INVALID", f'content range "{text[:80]}" is not that of the body')
    return int(found[1])


def _progress(name: str, session: str, offset: int, status: int) -> Reply:
    headers = {
        "Location": f"/v2/{name}/blobs/uploads/{session}",
        "Range": range_of(offset),
        "Docker-Upload-UUID": session,
    }
    return Reply(status, headers)


def _created_blob(name: str, digest: str) -> Reply:
    headers = {"Location": _place(name, "blobs", digest), "Docker-Content-Digest": digest}
    return Reply(201, headers)


def _place(name: str, kind: str, digest: str) -> str:
    return f"/v2/{name}/{kind}/{quote(digest, safe=':')}"
