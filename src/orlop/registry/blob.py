"""A blob's bytes, as they come."""

from __future__ import annotations

import re
from collections.abc import Iterator

from urllib3.exceptions import HTTPError

from orlop.errors import DataLoss, Unavailable
from orlop.oci.descriptor import Descriptor
from orlop.registry.http import Response, content_length
from orlop.registry.pace import Pace
from orlop.registry.repository import Repository
from orlop.registry.sources import Sources

_CHUNK = 512 * 1024
_RESUMES = 5
_BEFORE_ANOTHER = 2  # failures without getting on after which another host is asked first
_PLACE = re.compile(r"bytes (\d{1,19})-")


class NoRanges(Exception):
    """The registry sends all of a blob, whatever part was asked for."""


class BlobStream:
    """A blob's bytes from `offset` to `end`; a broken connection is taken up where it broke, and
    at another host where one breaks it again, or has something else than the blob.

    Iterate once, and `close`. With an `end` (0 is that of the blob) the registry must be able to
    send parts: NoRanges where it is not.
    """

    def __init__(self, sources: Sources, wanted: Descriptor, offset: int, end: int = 0) -> None:
        self._sources = sources
        self._from: Repository | None = None
        self._wanted = wanted
        self._offset = offset
        self._part = bool(end)
        self._end = end or wanted.size
        self._response: Response | None = None
        self._pace = Pace()

    def __iter__(self) -> Iterator[bytes]:
        """Chunks, up to the blob's size.

        Raises DataLoss for a blob of another size, and Unavailable when it breaks off again and
        again without getting on, whoever is asked.
        """
        failures, mark = 0, self._offset
        refused: set[Repository] = set()
        while self._offset < self._end:
            try:
                chunk = self._read()
            except HTTPError as error:
                self.close()
                if self._offset - mark >= _CHUNK:
                    failures, mark = 0, self._offset
                failures += 1
                if failures >= _BEFORE_ANOTHER and self._from is not None:
                    self._sources.pass_over(self._from)
                if failures > _RESUMES:
                    raise Unavailable(
                        f"download of {self._wanted.digest} broke off {failures} times, "
                        f"last at {self._offset} of {self._wanted.size} bytes: {error}"
                    ) from error
                continue
            except DataLoss:
                self.close()
                if self._from is None or self._from in refused:
                    raise
                refused.add(self._from)
                if not self._sources.pass_over(self._from):
                    raise
                continue
            self._offset += len(chunk)
            yield chunk

    def _read(self) -> bytes:
        if self._response is None:
            self._pace = Pace()
            self._response = self._request()
        # This gives what has come, so that nothing of a connection that breaks is lost.
        chunk = self._pace.read(self._response, _CHUNK)
        if not chunk:
            raise HTTPError("connection ended early")
        if self._offset + len(chunk) > self._end:
            raise self._other_size("more")
        return chunk

    def _request(self) -> Response:
        # A layer's own compression is its content; no other is wanted.
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self._part:
            headers["Range"] = f"bytes={self._offset}-{self._end - 1}"
        elif self._offset:
            headers["Range"] = f"bytes={self._offset}-"
        self._from = None
        self._from, response = self._sources.open(headers)
        try:
            self._check_size(response)
            if self._part and response.status != 206:
                raise NoRanges
            if self._offset and response.status != 206:
                _skip(response, self._offset)
        except BaseException:
            response.close()
            raise
        return response

    def _check_size(self, response: Response) -> None:
        """Refuse at once what cannot be the blob, or another part of it than was asked for."""
        place = _PLACE.match(response.headers.get("content-range", ""))
        if response.status == 206 and place and int(place[1]) != self._offset:
            raise DataLoss(
                f"{self._wanted.digest} was asked for from byte {self._offset}, "
                f"and comes from byte {place[1]}"
            )
        length = content_length(response)
        if length is None or "content-encoding" in response.headers:
            return
        size = length
        if response.status == 206:
            size += self._offset + self._wanted.size - self._end
        if size != self._wanted.size:
            raise self._other_size(str(size))

    def _other_size(self, found: str) -> DataLoss:
        wanted = self._wanted
        return DataLoss(f"{wanted.digest} has {found} bytes, {wanted.size} were announced")

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _skip(response: Response, count: int) -> None:
    """For a registry that ignores Range: read past what we have."""
    pace = Pace()
    while count:
        chunk = pace.read(response, min(count, _CHUNK))
        if not chunk:
            raise HTTPError("connection ended early")
        count -= len(chunk)
