"""The Task service of a shim: translate, call the container, translate back.

One implementation serves containerd.task.v2.Task and containerd.task.v3.Task, whose messages are
the same on the wire.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from orlop.rpc.context import validate_identifier
from orlop.rpc.convert import any_type, pack, timestamp
from orlop.rpc.table import snake_case
from orlop.shim import cgroup, criu, files, sandbox, stats
from orlop.shim.container import Container
from orlop.shim.host import Host
from orlop.shim.loop import Promise
from orlop.shim.process import Process
from orlop.shim.rest import Busy, Luggage
from orlop.shim.sandbox import SandboxService
from orlop.shim.server import Rpc
from orlop.shim.stdio import Stdio
from orlop.sys.mount import Mount
from orlop.wire import events_pb2 as events
from orlop.wire import task_v2_pb2 as task
from orlop.wire.runc_pb2 import Options, ProcessDetails

SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
RPCS = {
    rpc.name: (GetMessageClass(rpc.input_type), snake_case(rpc.name))
    for rpc in task.DESCRIPTOR.services_by_name["Task"].methods
}
"""Request class and Python name of each RPC, made before the fork and shared by all shims."""


class TaskService:
    """Serves the containers of one shim; every method is a coroutine.

    `shutdown` is called once the last container is gone and the daemon says so.
    """

    def __init__(self, host: Host, shutdown: Callable[[], None]) -> None:
        self._host = host
        self._shutdown = shutdown
        self._containers: dict[str, Container] = {}
        self._creating: dict[str, Promise[None]] = {}
        self._sandbox = SandboxService(host, self._leave)

    @property
    def empty(self) -> bool:
        """Whether no container is left, nor on its way, and there is no sandbox to be kept."""
        return not self._containers and not self._creating and not self._sandbox.exists

    def freeze(self, luggage: Luggage) -> dict[str, Any]:
        """What `thaw` takes up again; Busy while something is under way."""
        if self._creating:
            raise Busy
        containers = [each.freeze(luggage) for each in self._containers.values()]
        return {"containers": containers, "sandbox": self._sandbox.freeze()}

    def thaw(self, luggage: Luggage, state: dict[str, Any]) -> None:
        """Take up what was frozen."""
        for each in state["containers"]:
            self._containers[each["id"]] = Container.thaw(self._host, luggage, each)
        self._sandbox.thaw(state["sandbox"])

    def _leave(self) -> None:
        if self.empty:
            self._shutdown()

    def find(self, service: str, method: str) -> Rpc:
        """What serves a method; Unimplemented if nothing does."""
        if service == sandbox.SERVICE and (found := self._sandbox.find(method)):
            return found
        if service not in SERVICES:
            raise Unimplemented(f"service {service}")
        if method not in RPCS:
            raise Unimplemented(f"method {method}")
        request, name = RPCS[method]
        return Rpc(request, getattr(self, name))

    def _container(self, id: str) -> Container:
        container = self._containers.get(id)
        if container is None:
            raise NotFound(f'container "{id}"')
        return container

    async def create(self, request: Any) -> task.CreateTaskResponse:
        validate_identifier("container", request.id)
        if request.id in self._containers or request.id in self._creating:
            raise AlreadyExists(f'task "{request.id}"')
        options = parse_options(request.options)
        if options.shim_cgroup:
            for pid in (self._host.pid, os.getpid()):
                cgroup.join(options.shim_cgroup, pid)
        init = Process(self._host.loop, request.id, _stdio(request))
        container = Container(self._host, request.id, request.bundle, init, options)
        done: Promise[None] = Promise(self._host.loop)
        self._creating[request.id] = done
        try:
            save_options(request.bundle, options, self._host.pid)
            mounts = [
                Mount(mount.type, mount.source, mount.target, tuple(mount.options))
                for mount in request.rootfs
            ]
            await container.create(mounts, request.checkpoint)
        finally:
            del self._creating[request.id]
            done.resolve(None)  # who awaits it goes on after this step
        self._containers[request.id] = container
        self._publish_create(request, container)
        return task.CreateTaskResponse(pid=container.init.pid)

    def _publish_create(self, request: Any, container: Container) -> None:
        created = events.TaskCreate(
            container_id=request.id,
            bundle=request.bundle,
            rootfs=request.rootfs,
            io=events.TaskIO(
                stdin=request.stdin,
                stdout=request.stdout,
                stderr=request.stderr,
                terminal=request.terminal,
            ),
            checkpoint=request.checkpoint,
            pid=container.init.pid,
        )
        self._host.publisher.publish("/tasks/create", created)

    async def start(self, request: Any) -> task.StartResponse:
        container = self._container(request.id)
        if request.exec_id:
            process = await container.start_exec(request.exec_id)
            return task.StartResponse(pid=process.pid)
        await container.start()
        return task.StartResponse(pid=container.init.pid)

    async def delete(self, request: Any) -> task.DeleteResponse:
        """Also of a container that is being made: it is made, and then deleted."""
        if (created := self._creating.get(request.id)) is not None:
            await created
        container = self._container(request.id)
        if request.exec_id:
            process = await container.delete_exec(request.exec_id)
        else:
            await container.delete()
            self._containers.pop(request.id, None)
            process = container.init
        status, at = _exit(process)
        return task.DeleteResponse(pid=process.pid, exit_status=status, exited_at=timestamp(at))

    async def exec(self, request: Any) -> Empty:
        validate_identifier("exec", request.exec_id)
        container = self._container(request.id)
        container.add_exec(request.exec_id, _stdio(request), request.spec.value)
        return Empty()

    async def state(self, request: Any) -> task.StateResponse:
        container = self._container(request.id)
        process = container.process(request.exec_id)
        status, at = _exit(process)
        return task.StateResponse(
            id=process.id,
            bundle=container.bundle,
            pid=process.pid,
            status=container.status_of(process),
            stdin=process.stdio.stdin,
            stdout=process.stdio.stdout,
            stderr=process.stdio.stderr,
            terminal=process.stdio.terminal,
            exit_status=status,
            exited_at=timestamp(at),
            exec_id=request.exec_id,
        )

    async def wait(self, request: Any) -> task.WaitResponse:
        status, at = await self._container(request.id).process(request.exec_id).exited
        return task.WaitResponse(exit_status=status, exited_at=timestamp(at))

    async def kill(self, request: Any) -> Empty:
        container = self._container(request.id)
        if request.exec_id:
            await container.kill_exec(request.exec_id, request.signal)
        else:
            await container.kill(request.signal, all=request.all)
        return Empty()

    async def pause(self, request: Any) -> Empty:
        await self._container(request.id).pause()
        return Empty()

    async def resume(self, request: Any) -> Empty:
        await self._container(request.id).resume()
        return Empty()

    async def update(self, request: Any) -> Empty:
        await self._container(request.id).update(request.resources.value)
        return Empty()

    async def resize_pty(self, request: Any) -> Empty:
        process = self._container(request.id).process(request.exec_id)
        process.resize(request.width, request.height)
        return Empty()

    async def close_io(self, request: Any) -> Empty:
        process = self._container(request.id).process(request.exec_id)
        if request.stdin:
            process.io.close_stdin()
        return Empty()

    async def pids(self, request: Any) -> task.PidsResponse:
        response = task.PidsResponse()
        for pid, exec_id in self._container(request.id).pids():
            entry = response.processes.add(pid=pid)
            if exec_id:
                entry.info.CopyFrom(pack(ProcessDetails(exec_id=exec_id)))
        return response

    async def stats(self, request: Any) -> task.StatsResponse:
        return task.StatsResponse(stats=pack(stats.collect(self._container(request.id).cgroup)))

    async def checkpoint(self, request: Any) -> Empty:
        options = criu.parse_options(request.options)
        await self._container(request.id).checkpoint(request.path or options.image_path, options)
        return Empty()

    async def connect(self, request: Any) -> task.ConnectResponse:
        container = self._containers.get(request.id)
        pid = container.init.pid if container else 0
        return task.ConnectResponse(shim_pid=self._host.pid, task_pid=pid)

    async def shutdown(self, request: Any) -> Empty:
        """Ends the shim, unless it holds containers still, or is a sandbox."""
        self._leave()
        return Empty()


def parse_options(packed: AnyMessage) -> Options:
    """The runc options of a request; InvalidArgument for options of another runtime."""
    options = Options()
    if not packed.type_url:
        return options
    if any_type(packed) != Options.DESCRIPTOR.full_name:
        raise InvalidArgument(f'runtime options of type "{packed.type_url}"')
    try:
        options.ParseFromString(packed.value)
    except DecodeError as error:
        raise InvalidArgument("runtime options do not parse") from error
    return options


def save_options(bundle: str, options: Options, shim: int) -> None:
    """Leave in the bundle what a later `delete` by another process must know."""
    if not os.path.isdir(bundle):
        raise FailedPrecondition(f'bundle "{bundle}" is not a folder')
    fields = {field.name: value for field, value in options.ListFields()}
    fields["shim_pid"] = shim
    files.write(f"{bundle}/options.json", json.dumps(fields).encode(), create=True)


def _stdio(request: Any) -> Stdio:
    return Stdio(request.stdin, request.stdout, request.stderr, request.terminal)


def _exit(process: Process) -> tuple[int, int]:
    return process.exit or (0, 0)
