"""`containerd.services.images.v1.Images`.

Deletion is answered as soon as the name is gone; `sync` has no collection to wait for.
"""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import nanoseconds, timestamp
from orlop.wire import types_pb2
from orlop.wire.services import images_pb2 as wire


class ImagesService(Service):
    """The thin face of the image records."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Images"]

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def get(self, request: wire.GetImageRequest, ctx: CallContext) -> wire.GetImageResponse:
        image = self._store.get(ctx.require_namespace(), request.name)
        return wire.GetImageResponse(image=_to_wire(image))

    def list(self, request: wire.ListImagesRequest, ctx: CallContext) -> wire.ListImagesResponse:
        images = self._store.list(ctx.require_namespace(), request.filters)
        return wire.ListImagesResponse(images=map(_to_wire, images))

    def create(
        self, request: wire.CreateImageRequest, ctx: CallContext
    ) -> wire.CreateImageResponse:
        image = self._store.create(
            ctx.require_namespace(),
            _from_wire(request.image),
            lease=ctx.lease,
            at=nanoseconds(request.source_date_epoch),
        )
        return wire.CreateImageResponse(image=_to_wire(image))

    def update(
        self, request: wire.UpdateImageRequest, ctx: CallContext
    ) -> wire.UpdateImageResponse:
        image = self._store.update(
            ctx.require_namespace(),
            _from_wire(request.image),
            request.update_mask,
            lease=ctx.lease,
            at=nanoseconds(request.source_date_epoch),
        )
        return wire.UpdateImageResponse(image=_to_wire(image))

    def delete(self, request: wire.DeleteImageRequest, ctx: CallContext) -> Empty:
        self._store.delete(
            ctx.require_namespace(), request.name, target=request.target.digest, lease=ctx.lease
        )
        return Empty()


def _from_wire(message: wire.Image) -> Image:
    target = message.target
    return Image(
        name=message.name,
        target=Descriptor(
            media_type=target.media_type,
            digest=target.digest,
            size=target.size,
            annotations=dict(target.annotations),
        ),
        labels=dict(message.labels),
    )


def _to_wire(image: Image) -> wire.Image:
    target = types_pb2.Descriptor(
        media_type=image.target.media_type,
        digest=image.target.digest,
        size=image.target.size,
        annotations=image.target.annotations,
    )
    return wire.Image(
        name=image.name,
        labels=image.labels,
        target=target,
        created_at=timestamp(image.created_at),
        updated_at=timestamp(image.updated_at),
    )
