"""Between transfer messages on the wire and the nouns of this room."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from orlop.errors import InvalidArgument
from orlop.oci import platform
from orlop.oci.descriptor import Platform
from orlop.rpc.convert import any_type, pack
from orlop.transfer.progress import Progress, Report
from orlop.transfer.streams import Stream
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
