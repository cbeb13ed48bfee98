"""The Sandbox service: one sandbox, which is the shim's process and a note of what it was told."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.errors import NotFound
from orlop.rpc.convert import pack, timestamp
from orlop.wire import cgroups_v1_pb2 as metrics
from orlop.wire import runtime_sandbox_pb2 as wire
from orlop.wire.types_pb2 import Metric, Platform

STATUS = 5
"""With which a sandbox that was asked to stop has ended."""


class Sandbox:
    """One sandbox or, before it is created and after it is shut down, none."""

    def __init__(self) -> None:
        self._id = ""
        self._created_at = self._ended_at = 0
        self._started = False
        self._over = threading.Event()

    @property
    def empty(self) -> bool:
        return not self._id

    def _check(self, request: Any) -> None:
        if not self._id or request.sandbox_id != self._id:
            raise NotFound(f'sandbox "{request.sandbox_id}"')

    def create_sandbox(self, request: Any) -> wire.CreateSandboxResponse:
        self._id, self._created_at = request.sandbox_id, time.time_ns()
        told = {
            "netns": request.netns_path,
            "annotations": dict(request.annotations),
            "options": request.options.type_url,
            "rootfs": [mount.source for mount in request.rootfs],
        }
        Path(request.bundle_path, "sandbox-told.json").write_text(json.dumps(told))
        return wire.CreateSandboxResponse()

    def start_sandbox(self, request: Any) -> wire.StartSandboxResponse:
        self._check(request)
        self._started = True
        return wire.StartSandboxResponse(
            pid=os.getpid(),
            created_at=timestamp(self._created_at),
            spec=AnyMessage(type_url="strange/spec", value=b"{}"),
        )

    def platform(self, request: Any) -> wire.PlatformResponse:
        self._check(request)
        return wire.PlatformResponse(platform=Platform(os="strange", architecture="m68k"))

    def stop_sandbox(self, request: Any) -> wire.StopSandboxResponse:
        self._check(request)
        self._ended_at = self._ended_at or time.time_ns()
        self._over.set()
        return wire.StopSandboxResponse()

    def wait_sandbox(self, request: Any) -> wire.WaitSandboxResponse:
        self._check(request)
        self._over.wait()
        return wire.WaitSandboxResponse(exit_status=STATUS, exited_at=timestamp(self._ended_at))

    def sandbox_status(self, request: Any) -> wire.SandboxStatusResponse:
        self._check(request)
        ready = self._started and not self._ended_at
        return wire.SandboxStatusResponse(
            sandbox_id=self._id,
            pid=os.getpid(),
            state="SANDBOX_READY" if ready else "SANDBOX_NOTREADY",
            info={"mood": "strange"} if request.verbose else {},
            created_at=timestamp(self._created_at),
            exited_at=timestamp(self._ended_at) if self._ended_at else None,
            extra=AnyMessage(type_url="strange/extra", value=b"more"),
        )

    def ping_sandbox(self, request: Any) -> wire.PingResponse:
        self._check(request)
        return wire.PingResponse()

    def shutdown_sandbox(self, request: Any) -> wire.ShutdownSandboxResponse:
        self._check(request)
        self._over.set()
        self._id = ""
        return wire.ShutdownSandboxResponse()

    def sandbox_metrics(self, request: Any) -> wire.SandboxMetricsResponse:
        self._check(request)
        data = pack(metrics.Metrics(pids=metrics.PidsStat(current=3)))
        return wire.SandboxMetricsResponse(
            metrics=Metric(id=self._id, timestamp=timestamp(time.time_ns()), data=data)
        )
