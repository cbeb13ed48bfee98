"""Between transfer messages on the wire and the nouns of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from orlop.errors import InvalidArgument, Unimplemented
from orlop.oci import platform
from orlop.oci.descriptor import Platform
from orlop.rpc.convert import any_type, pack
from orlop.transfer.archive import Naming, Prefix
from orlop.transfer.progress import Progress, Report
from orlop.transfer.streams import Stream
from orlop.transfer.unpacking import Target
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.types_pb2 import Descriptor as WireDescriptor
from orlop.wire.types_pb2 import Platform as WirePlatform

_TYPES: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        types.OCIRegistry,
        types.ImageStore,
        types.ImageImportStream,
        types.ImageExportStream,
    )
}


def decode(value: Any) -> Message:
    """The source or destination in `value`; InvalidArgument for what is none."""
    kind = _TYPES.get(any_type(value))
    if kind is None:
        raise InvalidArgument(f'transfer of type "{value.type_url}" is not known')
    try:
        return kind.FromString(value.value)
    except DecodeError as error:
        raise InvalidArgument(f'"{value.type_url}" does not parse: {error}') from None


def to_platforms(found: Sequence[WirePlatform]) -> list[Platform]:
    return [to_platform(each) for each in found]


def to_platform(found: WirePlatform) -> Platform:
    return platform.normalize(
        Platform(
            found.architecture, found.os, found.variant, found.os_version, tuple(found.os_features)
        )
    )


def to_targets(
    found: Iterable[types.UnpackConfiguration], default_snapshotter: str
) -> list[Target]:
    """What to unpack for; this machine's platform where none is named."""
    return [
        (
            to_platform(each.platform) if each.platform.os else platform.host(),
            each.snapshotter or default_snapshotter,
        )
        for each in found
    ]


def to_naming(found: types.ImageStore) -> Naming:
    """How what is imported into an image store is to be named."""
    whole = [each for each in found.extra_references if not each.is_prefix]
    names = [found.name, *(each.name for each in whole if not each.add_digest)]
    return Naming(
        index=tuple(filter(None, names)),
        index_by_digest=tuple(each.name for each in whole if each.add_digest),
        prefixes=tuple(
            Prefix(each.name, each.allow_overwrite, each.add_digest, each.skip_named_digest)
            for each in found.extra_references
            if each.is_prefix
        ),
    )


def to_names(found: types.ImageStore) -> list[str]:
    """The images that a source names; Unimplemented for a prefix, as containerd says."""
    if any(each.is_prefix for each in found.extra_references):
        raise Unimplemented("export of images by a prefix of their names")
    names = [found.name, *(each.name for each in found.extra_references)]
    return list(dict.fromkeys(filter(None, names)))


def reporter(stream: Stream | None) -> Report:
    """What sends progress to a stream, if there is one."""
    if stream is None:
        return lambda _: None
    send: Callable[[Any], None] = stream.send

    def report(progress: Progress) -> None:
        message = types.Progress(
            event=progress.event,
            name=progress.name,
            parents=progress.parents,
            progress=progress.done,
            total=progress.total,
        )
        if progress.digest:
            message.desc.CopyFrom(
                WireDescriptor(
                    media_type=progress.media_type, digest=progress.digest, size=progress.total
                )
            )
        send(pack(message))

    return report
