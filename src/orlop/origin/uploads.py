"""Blob uploads (OCI distribution spec, "Pushing blobs"): each session is an ingest.

A session's bytes are on disk as they come, under a lease, so that a client goes on with it after a
broken connection, and after a kill of the daemon.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orlop.content import ContentStore, ContentWriter, Locked
from orlop.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from orlop.oci.digest import Digest
from orlop.origin.exchange import Refusal
from orlop.origin.holds import Holds
from orlop.origin.warm import WarmWriters
from orlop.web import Body

SESSION = re.compile(r"[0-9a-f]{32}")


class Uploads:
    """The upload sessions of one namespace; no blob may be larger than `blob_max` bytes."""

    def __init__(
        self, content: ContentStore, holds: Holds, namespace: str, blob_max: int = 64 << 30
    ) -> None:
        self._content = content
        self._holds = holds
        self._namespace = namespace
        self._blob_max = blob_max
        self._warm = WarmWriters()

    def close(self) -> None:
        """Close the writers; the sessions stay."""
        self._warm.close()

    def begin(self, repository: str) -> str:
        """Open a session; its id."""
        session = uuid.uuid4().hex
        ref = _ref(repository, session)
        lease = self._holds.lease(repository)
        self._content.writer(self._namespace, ref, lease=lease).close()
        return session

    def offset(self, repository: str, session: str) -> int:
        """How many bytes a session has; refuses one that is not there."""
        ref = _ref(repository, session)
        try:
            return self._content.status(self._namespace, ref).offset
        except NotFound:
            if (given_up := self._warm.take(ref)) is not None:
                given_up.close()
            raise _unknown(session) from None

    def append(self, repository: str, session: str, body: Body, start: int | None) -> int:
        """Add a body at `start`, None for the end; the bytes that are there then.

        Refuses a start that is not the end, and more than a blob may have.
        """
        with self._writing(repository, session) as writer:
            if start is not None and start != writer.offset:
                raise _out_of_order(start, writer.offset)
            self._write(writer, body)
            return writer.offset

    def finish(
        self, repository: str, session: str, body: Body, digest: str, start: int | None
    ) -> None:
        """Add the last bytes and make it a blob.

        Refuses a digest that is not that of the bytes; the session then begins again.
        """
        with self._writing(repository, session) as writer:
            if start is not None and start != writer.offset:
                raise _out_of_order(start, writer.offset)
            self._write(writer, body)
            try:
                writer.commit(0, digest)
            except AlreadyExists:
                return
            except Aborted:
                raise _unknown(session) from None
            except FailedPrecondition as error:
                self._drop(writer.ref)
                raise Refusal(400, "DIGEST_INVALID", error.message) from None

    def mount(self, repository: str, digest: str) -> bool:
        """Hold a blob that is here for a repository; False if it is not here."""
        lease = self._holds.lease(repository)
        return self._content.claim(self._namespace, digest, lease)

    def cancel(self, repository: str, session: str) -> None:
        """Give up a session and its bytes."""
        ref = _ref(repository, session)
        with self._writing(repository, session) as writer:
            writer.close()
            self._drop(ref)

    def _write(self, writer: ContentWriter, body: Body) -> None:
        if writer.offset + max(body.length, 0) > self._blob_max:
            raise self._too_large()
        for piece in body.pieces():
            if writer.offset + len(piece) > self._blob_max:
                raise self._too_large()
            writer.write(piece)

    def _too_large(self) -> Refusal:
        return Refusal(413, "SIZE_INVALID", f"a blob may have {self._blob_max} bytes, not more")

    def _drop(self, ref: str) -> None:
        with suppress(NotFound):
            self._content.abort(self._namespace, ref)

    @contextmanager
    def _writing(self, repository: str, session: str) -> Iterator[ContentWriter]:
        """The writer of a session, for one request at a time."""
        self.offset(repository, session)
        ref = _ref(repository, session)
        writer = self._take(repository, ref, session)
        try:
            yield writer
        except BaseException:
            writer.close()
            raise
        if not writer.closed:
            self._warm.put(ref, writer)

    def _take(self, repository: str, ref: str, session: str) -> ContentWriter:
        warm = self._warm.take(ref)
        if warm is not None:
            return warm
        try:
            return self._content.writer(self._namespace, ref, lease=self._holds.lease(repository))
        except Locked:
            raise Refusal(
                409,
                "BLOB_UPLOAD_INVALID",
                f'upload "{session}" is being written to by another request',
            ) from None


def _ref(repository: str, session: str) -> str:
    return f"registry-push/{repository}/{session}"


def _unknown(session: str) -> Refusal:
    return Refusal(404, "BLOB_UPLOAD_UNKNOWN", f'upload "{session}" is not known; begin it again')


def _out_of_order(start: int, offset: int) -> Refusal:
    return Refusal(
        416,
        "BLOB_UPLOAD_INVALID",
        f"the upload has {offset} bytes, it cannot go on at {start}",
        {"Range": range_of(offset)},
    )


def range_of(offset: int) -> str:
    """What an upload has, as the spec's `Range` header says it: the last byte counts."""
    return f"0-{max(offset - 1, 0)}"


def parse_digest(text: str) -> Digest:
    """Refuses what is no digest."""
    try:
        return Digest.parse(text)
    except InvalidArgument as error:
        raise Refusal(400, "DIGEST_INVALID", error.message) from None
