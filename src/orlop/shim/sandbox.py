"""The Sandbox service of a shim: the sandbox is the shim itself, kept for the containers to come.

Of a sandbox's own it gives nothing but that (containerd.runtime.sandbox.v1); namespaces are the
client's to make.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from orlop.errors import AlreadyExists, FailedPrecondition, NotFound
from orlop.rpc.convert import timestamp
from orlop.rpc.table import snake_case
from orlop.shim.host import Host
from orlop.shim.loop import Promise
from orlop.shim.server import Rpc
from orlop.wire import runtime_sandbox_pb2 as wire
from orlop.wire.types_pb2 import Platform

SERVICE = "containerd.runtime.sandbox.v1.Sandbox"
RPCS = {
    rpc.name: (GetMessageClass(rpc.input_type), snake_case(rpc.name))
    for rpc in wire.DESCRIPTOR.services_by_name["Sandbox"].methods
}
READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"


class SandboxService:
    """Serves the one sandbox of a shim. `leave` ends the shim once no container is left."""

    def __init__(self, host: Host, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._pid = host.pid
        self._id = ""
        self._created_at = 0
        self._started_at = 0
        self._ended_at = 0
        self._stopped: Promise[int] = Promise(host.loop)

    def freeze(self) -> tuple[str, int, int, int]:
        """What `thaw` takes up again."""
        return self._id, self._created_at, self._started_at, self._ended_at

    def thaw(self, state: tuple[str, int, int, int]) -> None:
        self._id, self._created_at, self._started_at, self._ended_at = state
        if self._ended_at:
            self._stopped.resolve(self._ended_at)

    @property
    def exists(self) -> bool:
        """Whether the shim is a sandbox, which outlives its containers."""
        return bool(self._id)

    def find(self, method: str) -> Rpc | None:
        """What serves a method of the service, None if nothing does."""
        if method not in RPCS:
            return None
        request, name = RPCS[method]
        return Rpc(request, getattr(self, name))

    def _check(self, id: str) -> None:
        if not self._id or id != self._id:
            raise NotFound(f'sandbox "{id}"')

    async def create_sandbox(self, request: Any) -> wire.CreateSandboxResponse:
        if self._id:
            raise AlreadyExists(f'sandbox "{self._id}"')
        self._id, self._created_at = request.sandbox_id, time.time_ns()
        return wire.CreateSandboxResponse()

    async def start_sandbox(self, request: Any) -> wire.StartSandboxResponse:
        self._check(request.sandbox_id)
        if self._started_at:
            raise FailedPrecondition(f'sandbox "{self._id}" was started before')
        self._started_at = time.time_ns()
        return wire.StartSandboxResponse(pid=self._pid, created_at=timestamp(self._created_at))

    async def platform(self, request: Any) -> wire.PlatformResponse:
        self._check(request.sandbox_id)
        machine = os.uname().machine
        known = {"x86_64": "amd64", "aarch64": "arm64"}
        platform = Platform(os="linux", architecture=known.get(machine, machine))
        return wire.PlatformResponse(platform=platform)

    async def stop_sandbox(self, request: Any) -> wire.StopSandboxResponse:
        """Its containers are the client's to stop; stopping it again is fine."""
        self._check(request.sandbox_id)
        if not self._ended_at:
            self._ended_at = time.time_ns()
            self._stopped.resolve(self._ended_at)
        return wire.StopSandboxResponse()

    async def wait_sandbox(self, request: Any) -> wire.WaitSandboxResponse:
        self._check(request.sandbox_id)
        ended_at = await self._stopped
        return wire.WaitSandboxResponse(exit_status=0, exited_at=timestamp(ended_at))

    async def sandbox_status(self, request: Any) -> wire.SandboxStatusResponse:
        self._check(request.sandbox_id)
        ready = self._started_at and not self._ended_at
        return wire.SandboxStatusResponse(
            sandbox_id=self._id,
            pid=self._pid,
            state=READY if ready else NOT_READY,
            created_at=timestamp(self._created_at),
            exited_at=timestamp(self._ended_at) if self._ended_at else None,
        )

    async def ping_sandbox(self, request: Any) -> wire.PingResponse:
        self._check(request.sandbox_id)
        return wire.PingResponse()

    async def shutdown_sandbox(self, request: Any) -> wire.ShutdownSandboxResponse:
        """The sandbox is no more; the shim ends with its last container."""
        self._check(request.sandbox_id)
        await self.stop_sandbox(request)
        self._id = ""
        self._leave()
        return wire.ShutdownSandboxResponse()

    async def sandbox_metrics(self, request: Any) -> wire.SandboxMetricsResponse:
        """It has no cgroup of its own."""
        self._check(request.sandbox_id)
        return wire.SandboxMetricsResponse()
