"""Import: the archive goes into the store as it comes, then its images are unpacked and named.

Everything is under a lease from the first byte, and names come last: what breaks off is not seen,
and what it brought in full need not be written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from orlop import typed
from orlop.content import ContentStore
from orlop.diff.decompress import decompress
from orlop.errors import Cancelled, InvalidArgument, NotFound
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.oci import manifest as documents
from orlop.oci import mediatypes, platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.digest import Digest
from orlop.oci.manifest import Index
from orlop.rpc import CallContext
from orlop.tar.reader import TarReader
from orlop.transfer.archive.docker import DockerArchive
from orlop.transfer.archive.intake import DOCKER, INDEX, LAYOUT, Intake
from orlop.transfer.archive.names import Naming
from orlop.transfer.archive.stored import StoredParts
from orlop.transfer.archive.tree import Tree
from orlop.transfer.documents import Found
from orlop.transfer.lease import holding
from orlop.transfer.progress import SAVED, Progress, Report, Throttle
from orlop.transfer.unpacking import Target, Unpacking

# The store bounds what fits, and each layer is bounded when it is unpacked.
_SIZE_MAX = 1 << 62
_HOLES_MAX = 1 << 30  # zeros that nobody has sent, and which would be written
_VERSION = "1.0.0"

Read = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Import:
    """What to make of an archive.

    `platforms` empty means all that it has, `limit` is how many of each image to take at most, 0
    without one; `all_metadata` keeps the documents of the others. `unpack` is what to unpack for,
    `labels` are those of the image records, `compress` compresses plain layers of docker archives.
    """

    naming: Naming
    platforms: Sequence[Platform] = ()
    unpack: Sequence[Target] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    all_metadata: bool = False
    limit: int = 0
    compress: bool = False


class Importer:
    """Imports archives into the stores that it is given; usable by many calls at once.

    `max_ratio` is how many times its size a compressed archive may be.
    """

    def __init__(
        self,
        content: ContentStore,
        images: ImageStore,
        leases: LeaseStore,
        unpacking: Unpacking,
        *,
        max_ratio: int,
    ) -> None:
        self._content = content
        self._images = images
        self._leases = leases
        self._unpacking = unpacking
        self._max_ratio = max_ratio

    def run(
        self,
        namespace: str,
        read: Read,
        wanted: Import,
        ctx: CallContext,
        report: Report = lambda _: None,
    ) -> list[Image]:
        """Import the archive whose bytes `read` gives, none at its end; the records made of it.

        Raises InvalidArgument for what is no image archive, DataLoss for a damaged one, NotFound
        for one in which something is missing or nothing is for a wanted platform.
        """
        self._unpacking.check(wanted.unpack)
        tell = Throttle(report)
        # The work ends with the call, and also with the first layer that fails.
        work = CallContext(namespace=namespace, deadline=ctx.deadline)
        ctx.on_cancel(work.cancel)
        tell(Progress("Importing"))
        try:
            with holding(self._leases, namespace, ctx.lease) as lease:
                parts = StoredParts(self._content, namespace, lease, work, tell)
                index = self._take(read, parts, wanted)
                images = self._images_of(index, parts, wanted, work)
                records = [self._images.put(namespace, each) for each in images]
        except Cancelled:
            ctx.check()
            raise
        for image in records:
            size = image.target.size
            tell(
                Progress(
                    SAVED, image.name, size, size, image.target.digest, image.target.media_type
                )
            )
        tell(Progress("Completed import"))
        return records

    def _take(self, read: Read, parts: StoredParts, wanted: Import) -> bytes:
        """Read the archive into the store; its index."""
        plain = decompress(
            read,
            max_size=_SIZE_MAX,
            max_ratio=self._max_ratio,
            what="archive",
        )
        with Intake(parts) as intake:
            reader = TarReader(lambda: next(plain, b""), what="archive", max_holes=_HOLES_MAX)
            intake.take(reader)
            return _index(intake, parts, compress=wanted.compress)

    def _images_of(
        self, data: bytes, parts: StoredParts, wanted: Import, work: CallContext
    ) -> list[Image]:
        index = documents.parse(data, mediatypes.OCI_INDEX)
        assert isinstance(index, Index)
        tree = Tree(parts, wanted.platforms, all_metadata=wanted.all_metadata, limit=wanted.limit)
        targets: dict[str, Descriptor] = {}
        found: dict[str, Found] = {}
        for each in index.manifests:
            if chosen := tree.images(each):
                found |= {image.descriptor.digest: image for image in chosen}
                self._name(each, wanted.naming, targets)
        if not found:
            texts = ", ".join(platform.text(each) for each in wanted.platforms) or "any platform"
            raise NotFound(f"image for {texts} in the archive")
        self._unpacking.bring(parts, list(found.values()), wanted.unpack, work)
        for name in wanted.naming.of_index(Digest.of(data)):
            targets[name] = parts.put_document(data, mediatypes.OCI_INDEX)
            parts.adopt(targets[name], index.manifests)
        return [Image(name, target, wanted.labels) for name, target in targets.items()]

    @staticmethod
    def _name(found: Descriptor, naming: Naming, targets: dict[str, Descriptor]) -> None:
        for name in naming.of_image(found.annotations, found.digest):
            if targets.setdefault(name, found).digest != found.digest:
                raise InvalidArgument(
                    f'archive has several images called "{name}"; choose a platform'
                )


def _index(intake: Intake, parts: StoredParts, *, compress: bool) -> bytes:
    """The index of an archive, which a docker archive gets here. An OCI layout goes first."""
    if LAYOUT in intake.documents:
        _check_version(intake.documents[LAYOUT])
        if INDEX not in intake.documents:
            raise InvalidArgument(f'archive is an OCI layout without its "{INDEX}"')
        return intake.documents[INDEX]
    if DOCKER in intake.documents:
        return DockerArchive(intake, parts, compress=compress).index()
    raise InvalidArgument(
        f'not an image archive: it has no "{LAYOUT}", as OCI layouts have, and no "{DOCKER}", '
        "as docker writes it"
    )


class _Layout(msgspec.Struct, frozen=True, rename="camel"):
    image_layout_version: str = ""


def _check_version(data: bytes) -> None:
    try:
        version = typed.decode(data, _Layout).image_layout_version
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f'"{LAYOUT}" does not parse: {error}') from None
    if version != _VERSION:
        raise InvalidArgument(f'OCI layout of version "{version:.20}" is not known')
