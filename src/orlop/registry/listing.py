"""What is in a registry: repositories, tags, what refers to a manifest; and how it goes away.

OCI distribution spec 1.1, "Content Discovery" and "Content Management".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from orlop import typed
from orlop.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OrlopError,
    ResourceExhausted,
    Unimplemented,
)
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.manifest import Index, parse
from orlop.registry.addresses import plain, resolve, same_origin
from orlop.registry.http import Response, dispose
from orlop.registry.repository import Repository

T = TypeVar("T")

_PAGES_MAX = 10_000
# All of them are held at once, and a registry may write much into each.
_REFERRERS_MAX, _REFERRERS_BYTES = 10_000, 32 << 20
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_OK_WITHOUT_API = (NotFound, Unimplemented)


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Repositories(msgspec.Struct):
    repositories: list[str] | None = None


def tags(repository: Repository, *, last: str = "", page: int = 0) -> Iterator[str]:
    """The tags of a repository, after `last`; `page` is how many to ask for at once, 0 for any."""
    for found in _pages(repository, repository.url("/tags/list" + _query(last, page)), _Tags):
        yield from found.tags or ()


def repositories(repository: Repository, *, last: str = "", page: int = 0) -> Iterator[str]:
    """The repositories of the registry that `repository` is in, where it lists them."""
    url = repository.host.url("/_catalog" + _query(last, page))
    for found in _pages(repository, url, _Repositories):
        yield from found.repositories or ()


def referrers(repository: Repository, digest: str, artifact_type: str = "") -> list[Descriptor]:
    """The manifests whose subject is the manifest `digest`, of one artifact type if it is given.

    A registry without the API for that lists them in an index under a tag (spec, "Unavailable
    Referrers API"). Some answer the API with other errors then: they are raised if there is no such
    tag; ResourceExhausted where they are too many.
    """
    Digest.parse(digest)
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    found: list[Descriptor] = []
    try:
        url = repository.url(f"/referrers/{digest}{query}")
        for index in _pages(repository, url, Index, most=_REFERRERS_BYTES):
            found += index.manifests
            if len(found) > _REFERRERS_MAX:
                raise ResourceExhausted(f"{plain(url)} has more than {_REFERRERS_MAX} entries")
    except (Cancelled, DeadlineExceeded):
        raise
    except OrlopError as error:
        found = _by_tag(repository, digest)
        if not found and not isinstance(error, _OK_WITHOUT_API):
            raise
    return [each for each in found if artifact_type in ("", each.artifact_type)]


def _by_tag(repository: Repository, digest: str) -> list[Descriptor]:
    url = repository.url(f"/manifests/{digest.replace(':', '-', 1)}")
    try:
        _, data = repository.document(url, mediatypes.OCI_INDEX)
    except NotFound:
        return []
    index = parse(data, mediatypes.OCI_INDEX)
    assert isinstance(index, Index)
    return list(index.manifests)


def delete_manifest(repository: Repository, name: str) -> None:
    """Delete a manifest by digest, or a tag; NotFound, or Unimplemented where it is not allowed."""
    _delete(repository, f"/manifests/{name}")


def delete_blob(repository: Repository, digest: str) -> None:
    """As `delete_manifest`, for a blob."""
    _delete(repository, f"/blobs/{digest}")


def _delete(repository: Repository, path: str) -> None:
    dispose(repository.request("DELETE", repository.url(path), {}))


def _query(last: str, page: int) -> str:
    given = {key: value for key, value in (("n", page), ("last", last)) if value}
    return f"?{urlencode(given)}" if given else ""


def _pages(repository: Repository, url: str, kind: type[T], most: float = math.inf) -> Iterator[T]:
    """Each page, and the one that its Link header names (RFC 8288); `most` bytes in all."""
    seen: set[int] = set()  # by hash: addresses may be long
    for _ in range(_PAGES_MAX):
        seen.add(hash(url))
        response, body = repository.document(url, f"{mediatypes.OCI_INDEX}, application/json")
        most -= len(body)
        if most < 0:
            raise ResourceExhausted(f"{plain(url)} is too long a list")
        try:
            yield typed.convert(msgspec.json.decode(body), kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidArgument(f"{plain(url)} answers what does not parse: {error}") from None
        following = _following(url, response)
        if following is None:
            return
        if hash(following) in seen:
            raise InvalidArgument(f"{plain(url)} goes on where it has been")
        url = following
    raise ResourceExhausted(f"{plain(url)} has more than {_PAGES_MAX} pages")


def _following(url: str, response: Response) -> str | None:
    link = _NEXT.search(response.headers.get("link", ""))
    if link is None:
        return None
    answered = response.url or url  # perhaps elsewhere, by a redirect
    target = resolve(answered, link[1])
    if not (same_origin(url, target) or same_origin(answered, target)):
        raise InvalidArgument(f'{plain(url)} goes on at "{plain(target)}", which is elsewhere')
    return target
