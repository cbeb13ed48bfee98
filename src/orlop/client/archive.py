"""Images in files: OCI layout and docker-save archives, through the daemon's transfer service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from typing import IO

from google.protobuf.any_pb2 import Any

from orlop.client.bytestreams import Download, Upload
from orlop.client.connection import Connection
from orlop.client.streams import Progress, ProgressStream
from orlop.client.transfers import wire_platform
from orlop.errors import InvalidArgument
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import transfer_pb2

_SAVED = "saved"


def import_images(
    connection: Connection,
    file: IO[bytes],
    *,
    index_name: str = "",
    base_name: str = "",
    digests: bool = False,
    platform_names: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    compress: bool = False,
    unpack: bool = True,
    snapshotter: str = "",
    on_progress: Callable[[Progress], None] | None = None,
) -> list[str]:
    """Take the images of an archive that is read from `file`; the names that they have now.

    It may be an OCI layout or what `docker save` writes, plain or compressed; it is read once, from
    beginning to end. Images keep their names. `base_name` is what a mere tag is a tag of, and then
    images of other names are left out; without one, it is `import-` and the date, which also names
    images that have no name, by their digest. `digests` adds such a name for every image, and
    `index_name` one for all images together.

    `platform_names` chooses platforms, of all that are there; `compress` compresses plain layers of
    a docker archive; `unpack` makes the images ready to run on this machine.

    Raises InvalidArgument for what is no such archive, DataLoss for a damaged one, NotFound when
    something is missing in it.
    """
    prefix = types.ImageReference(
        name=base_name or f"import-{date.today().isoformat()}",
        is_prefix=True,
        allow_overwrite=not base_name,
        add_digest=digests or not base_name,
        skip_named_digest=not digests,
    )
    destination = types.ImageStore(
        name=index_name,
        labels=labels or {},
        platforms=map(wire_platform, platform_names),
        extra_references=[prefix],
    )
    if unpack:
        destination.unpacks.add(platform=wire_platform(), snapshotter=snapshotter)
    names: list[str] = []

    def listen(progress: Progress) -> None:
        if progress.event == _SAVED:
            names.append(progress.name)
        if on_progress is not None:
            on_progress(progress)

    with ProgressStream(connection, listen) as listener:
        upload = Upload(connection, file)
        try:
            source = types.ImageImportStream(stream=upload.id, force_compress=compress)
            _transfer(connection, pack(source), pack(destination), listener)
        finally:
            upload.close()
            if upload.error is not None:
                raise upload.error
    return list(dict.fromkeys(names))


def export_images(
    connection: Connection,
    names: Sequence[str],
    file: IO[bytes],
    *,
    platform_names: Sequence[str] = (),
    all_platforms: bool = False,
    docker_manifest: bool = True,
    skip_non_distributable: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Write images to `file` as one archive: an OCI layout that `docker load` reads as well.

    Of an image for several platforms, those in `platform_names` are written (default: this
    machine's), or all. The same images always give the same bytes. `docker_manifest` False leaves
    out the part for docker. Raises NotFound for an unknown image, or when some of its content or a
    platform is not here, and InvalidArgument without a name.
    """
    if not names:
        raise InvalidArgument("no image to export")
    source = types.ImageStore(
        name=names[0], extra_references=[types.ImageReference(name=name) for name in names[1:]]
    )
    watching = ProgressStream(connection, on_progress) if on_progress else nullcontext()
    with watching as listener:
        download = Download(connection, file)
        try:
            destination = types.ImageExportStream(
                stream=download.id,
                platforms=map(wire_platform, platform_names),
                all_platforms=all_platforms,
                skip_compatibility_manifest=not docker_manifest,
                skip_non_distributable=skip_non_distributable,
            )
            _transfer(connection, pack(source), pack(destination), listener)
            download.finish()
        finally:
            download.close()
            if isinstance(download.error, OSError):
                raise download.error


def _transfer(
    connection: Connection, source: Any, destination: Any, listener: ProgressStream | None
) -> None:
    options = transfer_pb2.TransferOptions(progress_stream=listener.id if listener else "")
    connection.transfer.transfer(
        transfer_pb2.TransferRequest(source=source, destination=destination, options=options)
    )
