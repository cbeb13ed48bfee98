"""`containerd.services.mounts.v1.Mounts`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.empty_pb2 import Empty

from orlop.errors import Unimplemented
from orlop.mounts.manager import MountManager
from orlop.mounts.model import Activation
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.sys.mount import Mount
from orlop.wire import types_pb2 as types
from orlop.wire.services import mounts_pb2 as wire


class MountsService(Service):
    """The thin face of the mount manager."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Mounts"]

    def __init__(self, manager: MountManager) -> None:
        self._manager = manager

    def activate(self, request: wire.ActivateRequest, ctx: CallContext) -> wire.ActivateResponse:
        made = self._manager.activate(
            ctx.require_namespace(),
            request.name,
            [Mount(m.type, m.source, m.target, tuple(m.options)) for m in request.mounts],
            request.labels,
            temporary=request.temporary,
            lease=ctx.lease,
        )
        return wire.ActivateResponse(info=_info(made))

    def deactivate(self, request: wire.DeactivateRequest, ctx: CallContext) -> Empty:
        self._manager.deactivate(ctx.require_namespace(), request.name)
        return Empty()

    def info(self, request: wire.InfoRequest, ctx: CallContext) -> wire.InfoResponse:
        found = self._manager.info(ctx.require_namespace(), request.name)
        return wire.InfoResponse(info=_info(found))

    def update(self, _: wire.UpdateRequest, ctx: CallContext) -> wire.UpdateResponse:
        """As with containerd: an activation is what it is."""
        ctx.require_namespace()
        raise Unimplemented("an activation of mounts cannot be changed; deactivate it")

    def list(self, request: wire.ListRequest, ctx: CallContext) -> Iterator[wire.ListMessage]:
        for found in self._manager.list(ctx.require_namespace(), request.filters):
            yield wire.ListMessage(info=_info(found))


def _info(activation: Activation) -> types.ActivationInfo:
    return types.ActivationInfo(
        name=activation.name,
        active=[
            types.ActiveMount(
                mount=_mount(each.mount),
                mounted_at=timestamp(each.mounted_at),
                mount_point=each.mount_point,
            )
            for each in activation.active
        ],
        system=_mounts(activation.system),
        labels=activation.labels,
    )


def _mounts(mounts: Iterable[Mount]) -> list[types.Mount]:
    return [_mount(each) for each in mounts]


def _mount(mount: Mount) -> types.Mount:
    return types.Mount(
        type=mount.type, source=mount.source, target=mount.target, options=mount.options
    )
