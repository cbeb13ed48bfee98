"""The transfer service: what a source and a destination mean together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from orlop.errors import AlreadyExists, InvalidArgument, Unimplemented
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci import platform, reference
from orlop.oci.descriptor import Platform
from orlop.registry import Ask, Credentials, Http, RegistryClient
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import any_type, pack
from orlop.transfer.progress import Progress, Report
from orlop.transfer.pull import ExtraName, Puller, Wanted
from orlop.transfer.streams import Stream, Streams
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import transfer_pb2 as pb
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


class TransferService(Service):
    """Pull (registry to image store) and tag (image store to image store)."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Transfer"]

    def __init__(
        self, puller: Puller, images: ImageStore, streams: Streams, default_snapshotter: str
    ) -> None:
        self._puller = puller
        self._images = images
        self._streams = streams
        self._default_snapshotter = default_snapshotter

    def transfer(self, request: pb.TransferRequest, ctx: CallContext) -> Empty:
        namespace = ctx.require_namespace()
        source, destination = _decode(request.source), _decode(request.destination)
        if isinstance(source, types.OCIRegistry) and isinstance(destination, types.ImageStore):
            self._pull(namespace, source, destination, request.options.progress_stream, ctx)
        elif isinstance(source, types.ImageStore) and isinstance(destination, types.ImageStore):
            self._tag(namespace, source, destination)
        else:
            raise Unimplemented(
                f"transfer from {any_type(request.source)} to {any_type(request.destination)}"
            )
        return Empty()

    def _pull(
        self,
        namespace: str,
        source: types.OCIRegistry,
        destination: types.ImageStore,
        progress_stream: str,
        ctx: CallContext,
    ) -> None:
        progress = self._streams.get(namespace, progress_stream) if progress_stream else None
        try:
            with Http() as http:
                client = RegistryClient(
                    reference.parse(source.reference),
                    http=http,
                    scheme=source.resolver.default_scheme,
                    ask=self._asker(namespace, source, ctx),
                    headers=dict(source.resolver.headers),
                )
                wanted = self._wanted(source, destination)
                self._puller.pull(namespace, client, wanted, ctx, _reporter(progress))
        finally:
            if progress is not None:
                progress.close()

    def _wanted(self, source: types.OCIRegistry, destination: types.ImageStore) -> Wanted:
        return Wanted(
            name=destination.name or source.reference,
            platforms=_platforms(destination.platforms),
            unpack=[
                (
                    _platform(each.platform) if each.platform.os else platform.host(),
                    each.snapshotter or self._default_snapshotter,
                )
                for each in destination.unpacks
            ],
            labels=dict(destination.labels),
            all_metadata=destination.all_metadata,
            limit=destination.manifest_limit,
            extra_names=[
                ExtraName(each.name, each.add_digest)
                for each in destination.extra_references
                if not each.is_prefix
            ],
        )

    def _asker(self, namespace: str, source: types.OCIRegistry, ctx: CallContext) -> Ask | None:
        """Credentials come from the client, over a stream of its own."""
        if not source.resolver.auth_stream:
            return None
        stream = self._streams.get(namespace, source.resolver.auth_stream)
        ctx.on_cancel(stream.close)
        host = reference.parse(source.reference).host

        def ask(challenges: Sequence[str]) -> Credentials | None:
            stream.send(
                pack(
                    types.AuthRequest(
                        host=host, reference=source.reference, wwwauthenticate=challenges
                    )
                )
            )
            answer = types.AuthResponse.FromString(stream.receive().value)
            if answer.authType == types.HEADER:
                return Credentials(header=answer.secret)
            if answer.authType == types.REFRESH:
                return Credentials(refresh_token=answer.secret)
            if answer.authType == types.NONE:
                return None
            return Credentials(answer.username, answer.secret)

        return ask

    def _tag(self, namespace: str, source: types.ImageStore, destination: types.ImageStore) -> None:
        found = self._images.get(namespace, source.name)
        image = replace(found, name=destination.name, labels=dict(destination.labels))
        try:
            self._images.create(namespace, image)
        except AlreadyExists:
            self._images.update(namespace, Image(image.name, image.target, image.labels))


def _decode(value: Any) -> Message:
    kind = _TYPES.get(any_type(value))
    if kind is None:
        raise InvalidArgument(f'transfer of type "{value.type_url}" is not known')
    try:
        return kind.FromString(value.value)
    except DecodeError as error:
        raise InvalidArgument(f'"{value.type_url}" does not parse: {error}') from None


def _platforms(found: Sequence[WirePlatform]) -> list[Platform]:
    return [_platform(each) for each in found]


def _platform(found: WirePlatform) -> Platform:
    return platform.normalize(
        Platform(
            found.architecture, found.os, found.variant, found.os_version, tuple(found.os_features)
        )
    )


def _reporter(stream: Stream | None) -> Report:
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
