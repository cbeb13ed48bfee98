"""Push into one repository of a registry (OCI distribution spec 1.1, "Push")."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from orlop.errors import DataLoss, NotFound, OrlopError, Unavailable
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.registry.addresses import follow, plain
from orlop.registry.failures import status_error
from orlop.registry.http import Response, dispose, retry_after, worth_another_try
from orlop.registry.repository import Repository
from orlop.registry.sockets import FilePart

EXISTS, MOUNTED, UPLOADED = "already exists", "mounted", "complete"

_PIECE = 1 << 20
_CHUNK, _CHUNK_MIN = 8 << 20, 256 << 10
_FAILURES = 5
_BACKOFF, _BACKOFF_MAX = 0.2, 10.0
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_LENGTH = re.compile(r"\d{1,19}")
_OCTETS = {"Content-Type": "application/octet-stream"}

Sent = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of an open file, as the body of a request; `sent` is told how far it is."""

    fd: int
    start: int
    end: int
    sent: Sent

    @property
    def size(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[FilePart]:
        offset = self.start
        while offset < self.end:
            size = min(_PIECE, self.end - offset)
            yield FilePart(self.fd, offset, size)
            offset += size
            self.sent(offset)


class Uploads:
    """Takes blobs and manifests into a repository. Thread-safe."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def blob(self, blob: Descriptor, fd: int, *, mount: str = "", sent: Sent) -> str:
        """Bring a blob, which is open as `fd`; EXISTS, MOUNTED or UPLOADED.

        `mount` is another repository of the registry that has it, perhaps. A connection that breaks
        is taken up where it broke; a registry that limits the size of requests gets smaller ones.
        Raises Unavailable when it breaks again and again, and what the registry refuses with.
        """
        if self.has_blob(blob.digest):
            return EXISTS
        upload = _Upload(self._repository, blob, fd, sent)
        if upload.begin(mount):
            return MOUNTED if mount else EXISTS
        upload.run()
        return UPLOADED

    def has_blob(self, digest: str) -> bool:
        url = self._repository.url(f"/blobs/{digest}")
        response = self._repository.send("HEAD", url, {})
        if response.status not in (200, 404):
            raise status_error("HEAD", url, response)
        dispose(response)
        return response.status == 200

    def has_manifest(self, name: str, wanted: Descriptor) -> bool:
        """Whether the tag or digest `name` stands for this manifest already."""
        url = self._repository.url(f"/manifests/{name}")
        response = self._repository.send("HEAD", url, {"Accept": wanted.media_type})
        dispose(response)
        found = response.headers.get("docker-content-digest")
        return response.status == 200 and found == wanted.digest

    def manifest(self, name: str, data: bytes, media_type: str) -> bool:
        """Put a manifest under a tag or its digest; whether the registry lists what refers to it.

        False means that it did not take note of the manifest's `subject`. Raises DataLoss when it
        understood another digest.
        """
        url = self._repository.url(f"/manifests/{name}")
        response = self._repository.request("PUT", url, {"Content-Type": media_type}, data)
        dispose(response)
        _check_digest(self._repository, url, response, Digest.of(data))
        return "oci-subject" in response.headers

    def document(self, name: str, media_type: str) -> bytes | None:
        """The manifest or index under a name, None without one."""
        url = self._repository.url(f"/manifests/{name}")
        try:
            return self._repository.document(url, media_type)[1]
        except NotFound:
            return None


class _Upload:
    """One blob on its way: where its session is, and how much of it the registry has."""

    def __init__(self, repository: Repository, blob: Descriptor, fd: int, sent: Sent) -> None:
        self._repository = repository
        self._blob = blob
        self._fd = fd
        self._sent = sent
        self._location = ""
        self._offset = 0
        self._chunk = 0  # 0 sends all at once
        self._chunk_min = _CHUNK_MIN

    def begin(self, mount: str = "") -> bool:
        """Open a session; True when none is needed, for the blob is there."""
        query = {"mount": self._blob.digest, "from": mount} if mount else {}
        url = self._repository.url("/blobs/uploads/") + (f"?{urlencode(query)}" if query else "")
        if mount:
            answered = self._ask_to_mount(url)
            if answered is None:
                return self.begin()  # whether it may be mounted is not what counts
            response = answered
        else:
            response = self._repository.send("POST", url, {}, b"")
        if response.status == 201:
            dispose(response)
            return True
        if response.status != 202:
            raise status_error("POST", url, response)
        self._offset = 0
        self._note(response)
        least = response.headers.get("oci-chunk-min-length", "")
        if _LENGTH.fullmatch(least):
            self._chunk_min = max(self._chunk_min, int(least))
        return False

    def _ask_to_mount(self, url: str) -> Response | None:
        """The blob, or a session; None for anything else."""
        try:
            response = self._repository.send_once("POST", url, {}, b"")
        except Unavailable:
            return None
        if response.status in (201, 202):
            return response
        dispose(response)
        return None

    def run(self) -> None:
        failures, mark, pause = 0, 0, _BACKOFF
        while True:
            wait = pause
            response: Response | None = None
            try:
                response = self._step()
            except Unavailable as error:
                problem: OrlopError = error
            else:
                if response is None:
                    return
                wait = max(wait, retry_after(response))
                problem = status_error("PUT", self._location, response)
                self._react(response.status, problem)
            if self._offset > mark:
                failures, mark, pause = 0, self._offset, _BACKOFF
            if response is None or response.status != 413:
                failures += 1
                if failures > _FAILURES:
                    raise Unavailable(
                        f"upload of {self._blob.digest} failed {failures} times, last at "
                        f"{self._offset} of {self._blob.size} bytes: {problem.message}"
                    ) from problem
                self._repository.http.pause(wait)
                pause = min(pause * 2, _BACKOFF_MAX)
            if self._session_is_lost() and (self._arrived() or self.begin()):
                return

    def _react(self, status: int, problem: OrlopError) -> None:
        """Whether, and how, to try again after a refusal."""
        if status == 413:
            size = min(self._chunk or _CHUNK * 2, self._blob.size)
            if size <= self._chunk_min:
                raise problem
            self._chunk = max(size // 2, self._chunk_min)
        elif status not in (404, 408, 416, 429) and status < 500:
            raise problem

    def _step(self) -> Response | None:
        """Send the next part, or the last; None when all is there, else the refusal."""
        rest = self._blob.size - self._offset
        while self._chunk and rest > self._chunk:
            end = self._offset + self._chunk
            response = self._send("PATCH", self._location, end)
            if response.status not in (202, 204):
                return response
            before, self._offset = self._offset, end
            self._note(response)
            if self._offset <= before:
                raise Unavailable(f"{plain(self._location)} takes no more of the upload")
            rest = self._blob.size - self._offset
        joint = "&" if urlsplit(self._location).query else "?"
        url = f"{self._location}{joint}digest={quote(self._blob.digest, safe='')}"
        response = self._send("PUT", url, self._blob.size)
        if response.status not in (201, 204):
            return response
        dispose(response)
        _check_digest(self._repository, url, response, self._blob.digest)
        return None

    def _send(self, method: str, url: str, end: int) -> Response:
        headers = dict(_OCTETS)
        if method == "PATCH" or self._offset:
            headers["Content-Range"] = f"{self._offset}-{end - 1}"
        body = Slice(self._fd, self._offset, end, self._sent)
        return self._repository.send_once(method, url, headers, body)

    def _session_is_lost(self) -> bool:
        """Ask how much has arrived (spec, "Pushing a blob in chunks", the GET of a session)."""
        try:
            response = self._repository.send_once("GET", self._location, {})
        except Unavailable:
            return False  # nobody there: the next try will tell
        if worth_another_try(response):
            dispose(response)
            return False
        if response.status not in (200, 202, 204):
            dispose(response)
            return True
        self._offset = 0
        self._note(response)
        return False

    def _arrived(self) -> bool:
        """Whether only the answer to the last request was lost."""
        url = self._repository.url(f"/blobs/{self._blob.digest}")
        response = self._repository.send("HEAD", url, {})
        dispose(response)
        return response.status == 200

    def _note(self, response: Response) -> None:
        """Where the session goes on, and how far it is (spec, "Pushing a blob in chunks")."""
        dispose(response)
        url = response.url or ""
        location = response.headers.get("location", "")
        if not location and not self._location:
            raise Unavailable(f"{plain(url)} opens an upload without saying where")
        if location:
            self._location = follow(url, location)
        last = _RANGE.fullmatch(response.headers.get("range", "").strip())
        if last and int(last[1]):  # "0-0" is what an empty session has, too
            self._offset = min(int(last[1]) + 1, self._blob.size)


def _check_digest(repository: Repository, url: str, response: Response, wanted: str) -> None:
    """DataLoss if the registry understood something else than what it was sent."""
    found = response.headers.get("docker-content-digest", wanted)
    algorithm = wanted.partition(":")[0]
    if found.startswith(f"{algorithm}:") and found != wanted:
        raise DataLoss(
            f'registry "{repository.host.name}" took {wanted} at {plain(url)} for {found}'
        )
