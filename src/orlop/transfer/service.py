"""The transfer service: what a source and a destination mean together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.empty_pb2 import Empty
from msgspec.structs import replace

from orlop.errors import AlreadyExists, Unimplemented
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci import platform
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import any_type
from orlop.transfer import convert
from orlop.transfer.archive import Export, Exporter, Import, Importer
from orlop.transfer.bytestreams import ByteReader, ByteWriter
from orlop.transfer.progress import Report
from orlop.transfer.pull import ExtraName, Puller, Wanted
from orlop.transfer.push import Pusher
from orlop.transfer.resolver import Resolver
from orlop.transfer.streams import Streams
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import transfer_pb2 as pb


class TransferService(Service):
    """Pull, push, import and export, and tag (from the image store to itself)."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Transfer"]

    def __init__(
        self,
        puller: Puller,
        pusher: Pusher,
        importer: Importer,
        exporter: Exporter,
        images: ImageStore,
        streams: Streams,
        resolver: Resolver,
        default_snapshotter: str,
    ) -> None:
        self._puller = puller
        self._pusher = pusher
        self._importer = importer
        self._exporter = exporter
        self._images = images
        self._streams = streams
        self._resolver = resolver
        self._default_snapshotter = default_snapshotter

    def transfer(self, request: pb.TransferRequest, ctx: CallContext) -> Empty:
        namespace = ctx.require_namespace()
        source, destination = convert.decode(request.source), convert.decode(request.destination)
        with self._progress(namespace, request.options.progress_stream) as report:
            match source, destination:
                case types.OCIRegistry(), types.ImageStore():
                    self._pull(namespace, source, destination, ctx, report)
                case types.ImageStore(), types.OCIRegistry():
                    self._push(namespace, source, destination, ctx, report)
                case types.ImageImportStream(), types.ImageStore():
                    self._import(namespace, source, destination, ctx, report)
                case types.ImageStore(), types.ImageExportStream():
                    self._export(namespace, source, destination, ctx, report)
                case types.ImageStore(), types.ImageStore():
                    self._tag(namespace, source, destination)
                case _:
                    raise Unimplemented(
                        f"transfer from {any_type(request.source)} "
                        f"to {any_type(request.destination)}"
                    )
        return Empty()

    @contextmanager
    def _progress(self, namespace: str, id: str) -> Iterator[Report]:
        """What reports to the stream `id`, which ends with the transfer; "" is none."""
        stream = self._streams.get(namespace, id) if id else None
        try:
            yield convert.reporter(stream)
        finally:
            if stream is not None:
                stream.close()

    def _pull(
        self,
        namespace: str,
        source: types.OCIRegistry,
        destination: types.ImageStore,
        ctx: CallContext,
        report: Report,
    ) -> None:
        with self._resolver.client(namespace, source, ctx) as client:
            self._puller.pull(namespace, client, self._wanted(source, destination), ctx, report)

    def _wanted(self, source: types.OCIRegistry, destination: types.ImageStore) -> Wanted:
        return Wanted(
            name=destination.name or source.reference,
            platforms=convert.to_platforms(destination.platforms),
            unpack=convert.to_targets(destination.unpacks, self._default_snapshotter),
            labels=dict(destination.labels),
            all_metadata=destination.all_metadata,
            limit=destination.manifest_limit,
            extra_names=[
                ExtraName(each.name, each.add_digest)
                for each in destination.extra_references
                if not each.is_prefix
            ],
        )

    def _push(
        self,
        namespace: str,
        source: types.ImageStore,
        destination: types.OCIRegistry,
        ctx: CallContext,
        report: Report,
    ) -> None:
        platforms = convert.to_platforms(source.platforms)
        with self._resolver.client(namespace, destination, ctx) as client:
            self._pusher.push(namespace, source.name, client, platforms, ctx, report)

    def _import(
        self,
        namespace: str,
        source: types.ImageImportStream,
        destination: types.ImageStore,
        ctx: CallContext,
        report: Report,
    ) -> None:
        wanted = Import(
            naming=convert.to_naming(destination),
            platforms=convert.to_platforms(destination.platforms),
            unpack=convert.to_targets(destination.unpacks, self._default_snapshotter),
            labels=dict(destination.labels),
            all_metadata=destination.all_metadata,
            limit=destination.manifest_limit,
            compress=source.force_compress,
        )
        with ByteReader(self._streams.get(namespace, source.stream)) as archive:
            ctx.on_cancel(archive.abort)
            self._importer.run(namespace, archive.read, wanted, ctx, report)

    def _export(
        self,
        namespace: str,
        source: types.ImageStore,
        destination: types.ImageExportStream,
        ctx: CallContext,
        report: Report,
    ) -> None:
        wanted = Export(
            images=convert.to_names(source),
            platforms=convert.to_platforms(destination.platforms) or [platform.host()],
            all_platforms=destination.all_platforms,
            docker_manifest=not destination.skip_compatibility_manifest,
            skip_non_distributable=destination.skip_non_distributable,
        )
        with ByteWriter(self._streams.get(namespace, destination.stream)) as archive:
            ctx.on_cancel(archive.abort)
            self._exporter.run(namespace, wanted, archive.write, ctx, report)
            archive.finish()

    def _tag(self, namespace: str, source: types.ImageStore, destination: types.ImageStore) -> None:
        found = self._images.get(namespace, source.name)
        image = replace(found, name=destination.name, labels=dict(destination.labels))
        try:
            self._images.create(namespace, image)
        except AlreadyExists:
            self._images.update(namespace, Image(image.name, image.target, image.labels))
