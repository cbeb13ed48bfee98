"""`containerd.services.tasks.v1.Tasks`."""

from __future__ import annotations

from contextlib import suppress

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from orlop.errors import InvalidArgument
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import any_type, timestamp
from orlop.runtime.model import Endpoint, Exit, ProcessState, Stdio
from orlop.runtime.task import Task
from orlop.runtime.tasks import TaskManager
from orlop.sys.mount import Mount
from orlop.wire.runc_pb2 import Options
from orlop.wire.services import tasks_pb2 as wire
from orlop.wire.task_types_pb2 import Process, ProcessInfo
from orlop.wire.types_pb2 import Descriptor as WireDescriptor
from orlop.wire.types_pb2 import Metric

_NEWEST_API = 3


class TasksService(Service):
    """The thin face of the tasks."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Tasks"]

    def __init__(self, tasks: TaskManager) -> None:
        self._tasks = tasks

    def _task(self, ctx: CallContext, id: str) -> Task:
        return self._tasks.get(ctx.require_namespace(), id)

    def create(self, request: wire.CreateTaskRequest, ctx: CallContext) -> wire.CreateTaskResponse:
        pid = self._tasks.create(
            ctx,
            ctx.require_namespace(),
            request.container_id,
            rootfs=[Mount(m.type, m.source, m.target, tuple(m.options)) for m in request.rootfs],
            stdio=_stdio(request),
            options=request.options if request.HasField("options") else None,
            runtime=request.runtime_path,
            endpoint=_endpoint(request),
            checkpoint=_checkpoint(request),
        )
        return wire.CreateTaskResponse(container_id=request.container_id, pid=pid)

    def start(self, request: wire.StartRequest, ctx: CallContext) -> wire.StartResponse:
        pid = self._task(ctx, request.container_id).start(ctx, request.exec_id)
        return wire.StartResponse(pid=pid)

    def delete(self, request: wire.DeleteTaskRequest, ctx: CallContext) -> wire.DeleteResponse:
        ended = self._tasks.delete(ctx, ctx.require_namespace(), request.container_id)
        return _deleted(request.container_id, ended)

    def delete_process(
        self, request: wire.DeleteProcessRequest, ctx: CallContext
    ) -> wire.DeleteResponse:
        task = self._task(ctx, request.container_id)
        return _deleted(request.exec_id, task.delete_exec(ctx, request.exec_id))

    def get(self, request: wire.GetRequest, ctx: CallContext) -> wire.GetResponse:
        state = self._task(ctx, request.container_id).state(request.exec_id, ctx)
        return wire.GetResponse(process=_process(state))

    def list(self, request: wire.ListTasksRequest, ctx: CallContext) -> wire.ListTasksResponse:
        """The filter of the request has never had a meaning and is ignored."""
        states = self._tasks.states(ctx.require_namespace())
        return wire.ListTasksResponse(tasks=map(_process, states))

    def kill(self, request: wire.KillRequest, ctx: CallContext) -> Empty:
        task = self._task(ctx, request.container_id)
        task.kill(ctx, request.signal, request.exec_id, all=request.all)
        return Empty()

    def exec(self, request: wire.ExecProcessRequest, ctx: CallContext) -> Empty:
        task = self._task(ctx, request.container_id)
        self._tasks.expect_start()
        task.exec(ctx, request.exec_id, _stdio(request), request.spec)
        return Empty()

    def resize_pty(self, request: wire.ResizePtyRequest, ctx: CallContext) -> Empty:
        task = self._task(ctx, request.container_id)
        task.resize(ctx, request.exec_id, request.width, request.height)
        return Empty()

    def close_io(self, request: wire.CloseIORequest, ctx: CallContext) -> Empty:
        task = self._task(ctx, request.container_id)
        if request.stdin:
            task.close_stdin(ctx, request.exec_id)
        return Empty()

    def pause(self, request: wire.PauseTaskRequest, ctx: CallContext) -> Empty:
        self._task(ctx, request.container_id).pause(ctx)
        return Empty()

    def resume(self, request: wire.ResumeTaskRequest, ctx: CallContext) -> Empty:
        self._task(ctx, request.container_id).resume(ctx)
        return Empty()

    def list_pids(self, request: wire.ListPidsRequest, ctx: CallContext) -> wire.ListPidsResponse:
        pids = self._task(ctx, request.container_id).pids(ctx)
        return wire.ListPidsResponse(
            processes=[ProcessInfo(pid=each.pid, info=each.info) for each in pids]
        )

    def checkpoint(
        self, request: wire.CheckpointTaskRequest, ctx: CallContext
    ) -> wire.CheckpointTaskResponse:
        task = self._task(ctx, request.container_id)
        made = self._tasks.checkpoint(ctx, task, request.options)
        return wire.CheckpointTaskResponse(
            descriptors=[
                WireDescriptor(media_type=each.media_type, digest=each.digest, size=each.size)
                for each in made
            ]
        )

    def update(self, request: wire.UpdateTaskRequest, ctx: CallContext) -> Empty:
        task = self._task(ctx, request.container_id)
        task.update(ctx, request.resources, dict(request.annotations))
        return Empty()

    def metrics(self, request: wire.MetricsRequest, ctx: CallContext) -> wire.MetricsResponse:
        found = self._tasks.metrics(ctx.require_namespace(), request.filters)
        return wire.MetricsResponse(
            metrics=[
                Metric(id=each.id, timestamp=timestamp(each.at), data=each.data) for each in found
            ]
        )

    def wait(self, request: wire.WaitRequest, ctx: CallContext) -> wire.WaitResponse:
        ended = self._task(ctx, request.container_id).wait(ctx, request.exec_id)
        return wire.WaitResponse(exit_status=ended.status, exited_at=timestamp(ended.at))


def _endpoint(request: wire.CreateTaskRequest) -> Endpoint | None:
    """Where the sandbox's shim listens, `ttrpc+unix://PATH`, if the client says so.

    In the request or, by older clients, in the runtime's options.
    """
    address, version = request.task_api_address, request.task_api_version
    if not address and any_type(request.options) == Options.DESCRIPTOR.full_name:
        with suppress(DecodeError):  # the shim will say so
            options = Options.FromString(request.options.value)
            address, version = options.task_api_address, options.task_api_version
    if not address:
        return None
    protocol, plus, address = address.partition("+")
    if not plus:
        raise InvalidArgument(
            f'task API address "{protocol}" is not like ttrpc+unix://PATH or grpc+unix://PATH'
        )
    return Endpoint(version or _NEWEST_API, address, protocol)


def _checkpoint(request: wire.CreateTaskRequest) -> Descriptor | None:
    if not request.HasField("checkpoint"):
        return None
    found = request.checkpoint
    return Descriptor(media_type=found.media_type, digest=found.digest, size=found.size)


def _stdio(request: wire.CreateTaskRequest | wire.ExecProcessRequest) -> Stdio:
    return Stdio(request.stdin, request.stdout, request.stderr, request.terminal)


def _deleted(id: str, ended: Exit) -> wire.DeleteResponse:
    return wire.DeleteResponse(
        id=id, pid=ended.pid, exit_status=ended.status, exited_at=timestamp(ended.at)
    )


def _process(state: ProcessState) -> Process:
    """The field `container_id` stays empty, as clients of this API know it."""
    ended = state.exit or Exit(0, 0)
    return Process(
        id=state.id,
        pid=state.pid,
        status=state.status,
        stdin=state.stdio.stdin,
        stdout=state.stdio.stdout,
        stderr=state.stdio.stderr,
        terminal=state.stdio.terminal,
        exit_status=ended.status,
        exited_at=timestamp(ended.at),
    )
