"""Replies to what only reads (OCI distribution spec, "Pull", "Content Discovery")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec

from orlop.content import BlobReader, ContentStore
from orlop.errors import NotFound
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.origin.exchange import Refusal
from orlop.origin.graph import Document
from orlop.origin.offers import Offers
from orlop.origin.repositories import Repositories
from orlop.origin.uploads import parse_digest
from orlop.web import Reply, Request, Slice

_PAGE_MAX = 1000
_RANGE = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{1,19})?|-([0-9]{1,19}))")
_FOR_EVER = {"Cache-Control": "max-age=31536000, immutable"}


class Reads:
    """GET and HEAD of manifests, blobs and lists. `ns` in a query is the host that is meant."""

    def __init__(
        self, content: ContentStore, offers: Offers, repositories: Repositories, namespace: str
    ) -> None:
        self._content = content
        self._offers = offers
        self._repositories = repositories
        self._namespace = namespace

    def manifest(self, request: Request, name: str, wanted: str) -> Reply:
        if ":" in wanted:
            parse_digest(wanted)
        found = self._offers.manifest(name, _host(request), wanted)
        if found is None:
            raise _no_manifest(name, wanted)
        _check_accept(request, found.media_type)
        try:
            blob = self._content.open(self._namespace, found.digest)
        except NotFound:
            raise _no_manifest(name, wanted) from None
        headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
        return _whole(request, blob, found.digest, headers)

    def blob(self, request: Request, name: str, digest: str) -> Reply:
        parse_digest(digest)
        found = self._offers.blob(name, _host(request), digest)
        try:
            if found is None:
                raise NotFound(f'blob "{digest}"')
            blob = self._content.open(self._namespace, digest)
        except NotFound:
            raise Refusal(
                404, "BLOB_UNKNOWN", f'blob "{digest}" is not in repository "{name}" here'
            ) from None
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            **_FOR_EVER,
        }
        # Of anything but a GET a range is not looked at (RFC 9110, 14.2).
        asked = request.headers.get("range", "") if request.method == "GET" else ""
        condition = request.headers.get("if-range", "")
        if not asked or (condition and condition != _etag(digest)):
            return _whole(request, blob, digest, headers)
        return _part(blob, digest, headers, asked)

    def tags(self, request: Request, name: str) -> Reply:
        repository = self._repositories.find(name, _host(request))
        if not repository.targets:
            raise Refusal(404, "NAME_UNKNOWN", f'repository "{name}" is not here')
        page, headers = _page(request, sorted(repository.tags))
        return Reply.json({"name": name, "tags": page}, headers=headers)

    def catalog(self, request: Request) -> Reply:
        page, headers = _page(request, self._repositories.names())
        return Reply.json({"repositories": page}, headers=headers)

    def referrers(self, request: Request, name: str, digest: str) -> Reply:
        parse_digest(digest)
        found = self._offers.referrers(name, _host(request), digest)
        wanted = request.query.get("artifactType", "")
        headers = {}
        if wanted:
            found = [each for each in found if each.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_INDEX,
            "manifests": [msgspec.to_builtins(_referrer(each)) for each in found],
        }
        return Reply.json(index, media_type=mediatypes.OCI_INDEX, headers=headers)


def _host(request: Request) -> str:
    return request.query.get("ns", "")


def _referrer(document: Document) -> Descriptor:
    return msgspec.structs.replace(
        document.descriptor,
        artifact_type=document.artifact_type,
        annotations=document.annotations,
    )


def _no_manifest(name: str, wanted: str) -> Refusal:
    return Refusal(404, "MANIFEST_UNKNOWN", f'manifest "{wanted}" is not in "{name}" here')


def _check_accept(request: Request, media_type: str) -> None:
    """Refuse a client that says what it takes and does not take this."""
    accept = request.headers.get("accept", "")
    taken = {each.partition(";")[0].strip().lower() for each in accept.split(",")} - {""}
    if taken and not taken & {media_type, "*/*", "application/*"}:
        raise Refusal(
            404,
            "MANIFEST_UNKNOWN",
            f'the manifest is of type "{media_type}", which the request does not accept',
        )


def _etag(digest: str) -> str:
    return f'"{digest}"'


def _whole(request: Request, blob: BlobReader, digest: str, headers: dict[str, str]) -> Reply:
    headers = {**headers, "ETag": _etag(digest)}
    if request.headers.get("if-none-match", "") == _etag(digest):
        blob.close()
        return Reply(304, headers)
    return Reply(200, headers, Slice(blob, 0, blob.size))


def _part(blob: BlobReader, digest: str, headers: dict[str, str], asked: str) -> Reply:
    """One range of a blob; several, and what is no range, get the whole (RFC 9110, section 14)."""
    headers = {**headers, "ETag": _etag(digest)}
    found = _RANGE.fullmatch(asked.replace(" ", ""))
    if found is None or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return Reply(200, headers, Slice(blob, 0, blob.size))
    if found[3] is not None:
        start, end = max(blob.size - int(found[3]), 0), blob.size
    else:
        start = int(found[1])
        end = min(int(found[2]) + 1, blob.size) if found[2] else blob.size
    if start >= end:
        size = blob.size
        blob.close()
        raise Refusal(
            416,
            "BLOB_UNKNOWN",
            f"the blob has {size} bytes, the range {asked} is not of it",
            {"Content-Range": f"bytes */{size}"},
        )
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
    return Reply(206, headers, Slice(blob, start, end - start))


def _page(request: Request, names: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
    """The names after `last`, `n` of them, and the link to the next ones if there are more."""
    last = request.query.get("last", "")
    rest = [each for each in names if each > last]
    text = request.query.get("n")
    if text is None:
        count = _PAGE_MAX
    elif re.fullmatch(r"[0-9]{1,9}", text):
        count = min(int(text), _PAGE_MAX)
    else:
        raise Refusal(400, "PAGINATION_NUMBER_INVALID", f'"{text[:40]}" is not a number of names')
    page = rest[:count]
    if not page or len(page) == len(rest):
        return page, {}
    query = {"last": page[-1], "n": str(count)}
    if host := _host(request):
        query["ns"] = host
    link = f"{quote(request.path)}?{urlencode(query)}"
    return page, {"Link": f'<{link}>; rel="next"'}
