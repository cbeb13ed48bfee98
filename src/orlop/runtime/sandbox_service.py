"""`containerd.services.sandbox.v1.Controller`, for the controller `shim`."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any

from orlop.errors import InvalidArgument, NotFound, Unimplemented
from orlop.rpc import CallContext, Service
from orlop.runtime.sandboxes import SandboxManager
from orlop.sys.mount import Mount
from orlop.wire.services import sandbox_pb2 as wire

NAME = "shim"


class SandboxControllerService(Service):
    """The thin face of the sandboxes that shims run."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Controller"]

    def __init__(self, sandboxes: SandboxManager) -> None:
        self._sandboxes = sandboxes

    def create(
        self, request: wire.ControllerCreateRequest, ctx: CallContext
    ) -> wire.ControllerCreateResponse:
        _check(request.sandboxer)
        record = request.sandbox
        if not record.runtime.name:
            raise InvalidArgument(f'sandbox "{request.sandbox_id}" comes without its runtime')
        has_options = record.runtime.HasField("options")
        self._sandboxes.create(
            ctx,
            ctx.require_namespace(),
            request.sandbox_id,
            runtime=record.runtime.name,
            runtime_options=record.runtime.options if has_options else None,
            spec=_json(record.spec),
            rootfs=[Mount(m.type, m.source, m.target, tuple(m.options)) for m in request.rootfs],
            options=request.options if request.HasField("options") else None,
            netns_path=request.netns_path,
            annotations=dict(request.annotations),
        )
        return wire.ControllerCreateResponse(sandbox_id=request.sandbox_id)

    def start(
        self, request: wire.ControllerStartRequest, ctx: CallContext
    ) -> wire.ControllerStartResponse:
        _check(request.sandboxer)
        namespace = ctx.require_namespace()
        found = self._sandboxes.start(ctx, namespace, request.sandbox_id)
        address, version = self._address(namespace, request.sandbox_id)
        return wire.ControllerStartResponse(
            sandbox_id=request.sandbox_id,
            pid=found.pid,
            created_at=found.created_at,
            address=address,
            version=version,
            spec=found.spec if found.HasField("spec") else None,
        )

    def _address(self, namespace: str, id: str) -> tuple[str, int]:
        """What Tasks.Create takes for a container in the sandbox; empty without one."""
        endpoint = self._sandboxes.endpoint(namespace, id)
        if endpoint is None:
            return "", 0
        return f"{endpoint.protocol}+{endpoint.address}", endpoint.version

    def platform(
        self, request: wire.ControllerPlatformRequest, ctx: CallContext
    ) -> wire.ControllerPlatformResponse:
        """As containerd, which keeps it for its own CRI service; see `SandboxManager.platform`."""
        raise Unimplemented("the platform of a sandbox is not told here")

    def stop(
        self, request: wire.ControllerStopRequest, ctx: CallContext
    ) -> wire.ControllerStopResponse:
        _check(request.sandboxer)
        namespace, seconds = ctx.require_namespace(), request.timeout_secs
        self._sandboxes.stop(ctx, namespace, request.sandbox_id, seconds)
        return wire.ControllerStopResponse()

    def wait(
        self, request: wire.ControllerWaitRequest, ctx: CallContext
    ) -> wire.ControllerWaitResponse:
        _check(request.sandboxer)
        ended = self._sandboxes.wait(ctx, ctx.require_namespace(), request.sandbox_id)
        return wire.ControllerWaitResponse(exit_status=ended.exit_status, exited_at=ended.exited_at)

    def status(
        self, request: wire.ControllerStatusRequest, ctx: CallContext
    ) -> wire.ControllerStatusResponse:
        _check(request.sandboxer)
        namespace, name = ctx.require_namespace(), request.sandbox_id
        found = self._sandboxes.status(ctx, namespace, name, verbose=request.verbose)
        address, version = self._address(namespace, name)
        return wire.ControllerStatusResponse(
            sandbox_id=found.sandbox_id,
            pid=found.pid,
            state=found.state,
            info=found.info,
            created_at=found.created_at if found.HasField("created_at") else None,
            exited_at=found.exited_at if found.HasField("exited_at") else None,
            extra=found.extra if found.HasField("extra") else None,
            address=address,
            version=version,
        )

    def shutdown(
        self, request: wire.ControllerShutdownRequest, ctx: CallContext
    ) -> wire.ControllerShutdownResponse:
        _check(request.sandboxer)
        self._sandboxes.shutdown(ctx, ctx.require_namespace(), request.sandbox_id)
        return wire.ControllerShutdownResponse()

    def metrics(
        self, request: wire.ControllerMetricsRequest, ctx: CallContext
    ) -> wire.ControllerMetricsResponse:
        _check(request.sandboxer)
        found = self._sandboxes.metrics(ctx, ctx.require_namespace(), request.sandbox_id)
        return wire.ControllerMetricsResponse(metrics=found.metrics)

    def update(
        self, request: wire.ControllerUpdateRequest, ctx: CallContext
    ) -> wire.ControllerUpdateResponse:
        """The record is the store's; shims are not told, as by containerd."""
        _check(request.sandboxer)
        ctx.require_namespace()
        return wire.ControllerUpdateResponse()


def _check(sandboxer: str) -> None:
    if not sandboxer:
        raise InvalidArgument("no sandboxer is named")
    if sandboxer != NAME:
        raise NotFound(f'sandboxer "{sandboxer}"')


def _json(spec: Any) -> bytes:
    """The spec for the bundle; shims read annotations in it, and nothing where there is none."""
    return spec.value if spec.value.lstrip().startswith(b"{") else b"{}"
