"""The files of an archive, taken in as they come, in any order, none of them trusted.

Blobs go to the content store at once and are verified. Documents that name others, and the files of
old docker archives, wait until it is known what they are: in memory, or as ingests.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from types import TracebackType

from orlop.errors import InvalidArgument, NotFound, ResourceExhausted
from orlop.oci.digest import Digest
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.tar.reader import DIRECTORY, LINK, REGULAR, SYMLINK, Entry, TarReader
from orlop.transfer.archive.files import File, HeldFile, SmallFile, StoredFile
from orlop.transfer.archive.stored import StoredParts
from orlop.transfer.progress import COMPLETE, DOWNLOADING, Progress

LAYOUT, INDEX, DOCKER = "oci-layout", "index.json", "manifest.json"

_DOCUMENTS = frozenset({LAYOUT, INDEX, DOCKER})
_BLOBS = "blobs/"
_ENTRIES_MAX = 100_000
_NAME_MAX = 4096  # bytes
_NAMES_MAX = 16 << 20  # of all entries and what they link to
_SIZE_MAX = 1 << 50
_LINKS_MAX = 8  # from link to link
_SMALL = 64 << 10
_MEMORY_MAX = 16 << 20
_HELD_MAX = 256  # each takes a descriptor
_TRAILER_MAX = 16 << 20


class Intake:
    """What an archive holds, by name. Blobs are put into `parts`.

    A context manager: leaving it drops what is neither a blob nor was made one.
    """

    def __init__(self, parts: StoredParts) -> None:
        self.documents: dict[str, bytes] = {}
        self._parts = parts
        self._files: dict[str, File] = {}
        self._held: list[HeldFile] = []
        self._links: dict[str, str] = {}
        self._entries = 0
        self._names = 0
        self._memory = 0

    def take(self, reader: TarReader) -> None:
        """Read a whole archive.

        Raises InvalidArgument for what no image archive has, ResourceExhausted for too much of it,
        and DataLoss for a blob that is not what its name says.
        """
        for entry in reader:
            self._entries += 1
            if self._entries > _ENTRIES_MAX:
                raise ResourceExhausted(f"archive has more than {_ENTRIES_MAX} entries")
            self._names += len(entry.name) + len(entry.link)
            if self._names > _NAMES_MAX:
                raise ResourceExhausted(f"archive has more than {_NAMES_MAX} bytes of names")
            name = _clean(entry.name)
            if entry.size > _SIZE_MAX:
                raise ResourceExhausted(f'archive entry "{name}" has {entry.size} bytes')
            if entry.type == REGULAR:
                self._file(name, entry, reader)
            elif entry.type in (SYMLINK, LINK):
                self._link(name, entry)
            elif entry.type != DIRECTORY:
                raise InvalidArgument(f'archive entry "{name}" is neither file, folder nor link')
        self._check_end(reader)

    @staticmethod
    def _check_end(reader: TarReader) -> None:
        """Read on to the end: the sender has not finished before, and checksums come last."""
        size = 0
        for piece in reader.rest():
            size += len(piece)
            if size > _TRAILER_MAX:
                raise InvalidArgument("archive goes on after its end")

    def _file(self, name: str, entry: Entry, reader: TarReader) -> None:
        if name in self._links:
            raise InvalidArgument(f'archive has "{name}" twice')
        if name in _DOCUMENTS:
            self._document(name, entry.size, reader)
            return
        if name.startswith(_BLOBS):
            found = self._blob(name, entry.size, reader)
        else:
            found = self._other(name, entry.size, reader)
        if self._files.setdefault(name, found).digest != found.digest:
            raise InvalidArgument(f'archive has "{name}" twice, with different content')

    def _document(self, name: str, size: int, reader: TarReader) -> None:
        if size > DOCUMENT_MAX:
            raise InvalidArgument(f'"{name}" of {size} bytes is larger than {DOCUMENT_MAX}')
        data = b"".join(reader.content())
        if self.documents.setdefault(name, data) != data:
            raise InvalidArgument(f'archive has "{name}" twice, with different content')

    def _blob(self, name: str, size: int, reader: TarReader) -> File:
        digest = Digest.parse(name.removeprefix(_BLOBS).replace("/", ":", 1))
        pieces = self._watched(name, size, digest, reader)
        self._parts.put(pieces, size=size, expected=digest, name=name)
        self._say(COMPLETE, name, size, size, digest)
        return StoredFile(self._parts, digest, size)

    def _other(self, name: str, size: int, reader: TarReader) -> File:
        if size <= _SMALL and self._memory + size <= _MEMORY_MAX:
            self._memory += size
            data = b"".join(reader.content())
            return SmallFile(self._parts, Digest.of(data), data)
        pieces = self._watched(name, size, "", reader)
        found: File
        if len(self._held) < _HELD_MAX:
            found = HeldFile(self._parts, self._parts.hold(pieces))
            self._held.append(found)
        else:
            digest = self._parts.put(pieces, size=size, name=name)
            found = StoredFile(self._parts, digest, size)
        self._say(COMPLETE, name, size, size, found.digest)
        return found

    def _link(self, name: str, entry: Entry) -> None:
        if len(entry.link) > _NAME_MAX:
            raise InvalidArgument(f'archive entry "{name}" has too long a link')
        target = entry.link
        if entry.type == SYMLINK:
            target = posixpath.join(posixpath.dirname(name.encode()), target)
        target_name = _clean(target)
        if name in self._files or self._links.setdefault(name, target_name) != target_name:
            raise InvalidArgument(f'archive has "{name}" twice')

    def find(self, name: str) -> File:
        """The file `name`, or what it is a link to; raises NotFound."""
        at = _clean(name.encode())
        for _ in range(_LINKS_MAX):
            if at not in self._links:
                break
            at = self._links[at]
        found = self._files.get(at)
        if found is None:
            raise NotFound(f'file "{name}" in the archive')
        return found

    def __enter__(self) -> Intake:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._held:
            file.drop()

    def _watched(
        self, name: str, size: int, digest: str, reader: TarReader
    ) -> Iterator[memoryview]:
        """The content of an entry, with progress."""
        done = 0
        self._say(DOWNLOADING, name, 0, size, digest)
        for piece in reader.content():
            yield piece
            done += len(piece)
            self._say(DOWNLOADING, name, done, size, digest)

    def _say(self, event: str, name: str, done: int, size: int, digest: str) -> None:
        self._parts.tell(Progress(event, name, done, size, digest))


def _clean(name: bytes) -> str:
    """A path in the archive; InvalidArgument for one that leads out of it, or is no text."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"archive entry {name[:100]!r} is not named in UTF-8") from None
    if len(name) > _NAME_MAX or not text.isprintable():
        raise InvalidArgument(f"archive entry {name[:100]!r} has no proper name")
    path = posixpath.normpath(text)
    if path.startswith("/") or path.split("/")[0] == "..":
        raise InvalidArgument(f'archive entry "{text}" leads out of the archive')
    return path
