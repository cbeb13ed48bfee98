"""A container: the states of its processes, and what may be done in which."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unknown,
)
from orlop.rpc.convert import timestamp
from orlop.shim import cgroup, criu, files, shortcuts
from orlop.shim.children import Exit, send_signal
from orlop.shim.host import Host
from orlop.shim.launching import Launcher
from orlop.shim.loop import Promise
from orlop.shim.oom import OomWatch
from orlop.shim.process import Process
from orlop.shim.rest import Busy, Luggage
from orlop.shim.runc import Runc, RuncError, checked
from orlop.shim.stdio import Stdio
from orlop.sys.mount import Mount, mount_all, unmount_all
from orlop.wire import events_pb2 as events
from orlop.wire.runc_pb2 import CheckpointOptions, Options
from orlop.wire.task_types_pb2 import Status

# A process that its killed runtime has left takes a moment to notice.
_CGROUP_TRIES, _CGROUP_PAUSE = 200, 0.02


class Container:
    """One container, from `create` to `delete`."""

    def __init__(self, host: Host, id: str, bundle: str, init: Process, options: Options) -> None:
        self.id = id
        self.bundle = bundle
        self.init = init
        self.cgroup = cgroup.Cgroup()
        self._execs: dict[str, Process] = {}
        self._live_execs: set[Process] = set()
        self._host = host
        self._runc = Runc(host, options, scratch=bundle)
        self._launcher = Launcher(host, id, bundle, self._runc, (options.io_uid, options.io_gid))
        self._options = options
        self._state = f"{self._runc.root}/{id}"
        self._rootfs = f"{bundle}/rootfs"
        self._mounted = False
        self._init_gone = False
        self._deleted = False
        self._own_pid_namespace = True
        self._init_ended: Promise[Exit] = Promise(host.loop)
        self._oom_watch: OomWatch | None = None
        self._checkpoint = ""  # the images that its start restores it from
        self._criu_work = options.criu_work_path or f"{bundle}/criu-work"

    def freeze(self, luggage: Luggage) -> dict[str, Any]:
        """What `thaw` makes it from again; Busy in the middle of a change."""
        if self._deleted or (self._init_gone and self.init.exit is None):
            raise Busy
        return {
            "id": self.id,
            "bundle": self.bundle,
            "options": self._options.SerializeToString(),
            "init": self.init.freeze(luggage),
            "execs": [each.freeze(luggage) for each in self._execs.values()],
            "cgroup": (self.cgroup.unified, self.cgroup.controllers),
            "mounted": self._mounted,
            "checkpoint": self._checkpoint,
            "own_pids": self._own_pid_namespace,
            "oom": self._oom_watch and self._oom_watch.freeze(luggage),
        }

    @classmethod
    def thaw(cls, host: Host, luggage: Luggage, state: dict[str, Any]) -> Container:
        loop, children = host.loop, host.children
        options = Options.FromString(state["options"])
        init = Process.thaw(loop, children, host.log, luggage, state["init"])
        self = cls(host, state["id"], state["bundle"], init, options)
        self.cgroup = cgroup.Cgroup(*state["cgroup"])
        self._mounted = state["mounted"]
        self._checkpoint = state["checkpoint"]
        self._own_pid_namespace = state["own_pids"]
        if state["oom"]:
            self._oom_watch = OomWatch.thaw(loop, luggage, state["oom"], self._report_oom)
        if init.exit is not None:
            self._init_gone = True
        elif init.pid:
            self._init_ended = children.exit_of(init.pid)
            loop.spawn(self._await_init_exit(self._init_ended))
        for each in state["execs"]:
            process = Process.thaw(loop, children, host.log, luggage, each)
            self._execs[process.id] = process
            if process.pid and process.exit is None:
                self._live_execs.add(process)
                loop.spawn(self._await_exec_exit(process, children.exit_of(process.pid)))
        return self

    def process(self, exec_id: str = "") -> Process:
        """The init, or an exec; NotFound if there is no such exec."""
        if not exec_id:
            return self.init
        process = self._execs.get(exec_id)
        if process is None:
            raise NotFound(f'process "{exec_id}"')
        return process

    # Create and start

    async def create(self, rootfs: Sequence[Mount], checkpoint: str = "") -> None:
        """Mount the root and make runc create the container; on any error nothing is left.

        With the folder of a `checkpoint` the container is only made by `start`.
        """
        init = self.init
        async with init.lock:
            self._mount(rootfs)
            try:
                init.io.listen(self.bundle, "attach.sock")
                await self._launcher.open_io(init)
                if checkpoint:
                    criu.kept_plan(checkpoint)
                    self._checkpoint = checkpoint
                    return
                self._watch(await self._launcher.create(init))
            except Exception:
                init.io.close()
                await self._undo_create()
                raise

    def _watch(self, ended: Promise[Exit]) -> None:
        """There is a first process now: see to it."""
        self._init_ended = ended
        self._own_pid_namespace = _leads_pid_namespace(self.init.pid)
        self.cgroup = cgroup.of_process(self.init.pid)
        try:
            self._oom_watch = OomWatch.start(self._host.loop, self.cgroup, self._report_oom)
        except OSError as error:
            self._host.log.warning(f"out of memory would not be told: {error}", container=self.id)
        self._host.loop.spawn(self._await_init_exit(ended))

    async def _undo_create(self) -> None:
        """The runtime may have been killed, or have made a container that cannot be used."""
        await self._logged(self._runc.wipe(self.id))
        path = cgroup.path_in(self.bundle)
        for _ in range(_CGROUP_TRIES):
            if cgroup.remove_empty(path):
                break
            await self._host.loop.sleep(_CGROUP_PAUSE)
        self._unmount()

    async def start(self) -> None:
        async with self.init.lock:
            if self.init.status != Status.CREATED:
                raise self.init.refuse("start")
            if self._checkpoint:
                await self._restore(self._checkpoint)
            elif not await shortcuts.start(self._host.loop, self._state, self._init_ended):
                await checked("start", self._runc.start(self.id))
            self.init.status = Status.RUNNING
            self.init.io.begin()
            self._publish("start", events.TaskStart(container_id=self.id, pid=self.init.pid))

    async def _restore(self, images: str) -> None:
        """Make the container out of a checkpoint; when it fails, it is as it was before."""
        try:
            self._watch(await self._launcher.restore(self.init, images, self._criu_work))
        except Exception:
            await self._logged(self._runc.wipe(self.id))
            raise

    def add_exec(self, exec_id: str, stdio: Stdio, spec: bytes) -> None:
        """Remember a process to start: `spec` is the JSON of the runtime spec's Process."""
        if exec_id in self._execs:
            raise AlreadyExists(f'id "{exec_id}"')
        if self.init.status == Status.STOPPED or self._init_gone:
            raise FailedPrecondition("cannot exec in a stopped state")
        if self.init.status in (Status.PAUSED, Status.PAUSING):
            raise Unknown("cannot exec in a paused state")
        document = _object(exec_id, spec)
        if bool(document.get("terminal")) != stdio.terminal:
            spec = json.dumps({**document, "terminal": stdio.terminal}).encode()
        process = Process(self._host.loop, exec_id, stdio, spec)
        process.io.listen(self.bundle, f"attach-{exec_id}.sock")
        self._execs[exec_id] = process
        self._publish("exec-added", events.TaskExecAdded(container_id=self.id, exec_id=exec_id))

    async def start_exec(self, exec_id: str) -> Process:
        process = self.process(exec_id)
        async with process.lock:
            if process.status != Status.CREATED:
                raise process.refuse("start")
            if self._init_gone:
                raise FailedPrecondition(f'init process of container "{self.id}" is not running')
            self._live_execs.add(process)
            try:
                await self._launcher.open_io(process)
                ended = await self._launcher.exec(process)
            except BaseException:
                self._live_execs.discard(process)
                process.fail()
                raise
            process.status = Status.RUNNING
            process.io.begin()
            process.spec = b""
            started = events.TaskExecStarted(container_id=self.id, exec_id=exec_id, pid=process.pid)
            self._publish("exec-started", started)
        self._host.loop.spawn(self._await_exec_exit(process, ended))
        return process

    # The end

    async def delete(self) -> None:
        """Remove the container; its processes must have ended, or never been started."""
        if self.init.status == Status.CREATED:
            await self._kill_unstarted()
        async with self.init.lock:
            if self._deleted:
                raise NotFound(f'container "{self.id}"')
            if self.init.status != Status.STOPPED:
                raise self.init.refuse("delete")
            await self.init.io.drain()
            if not shortcuts.delete(self._state, self.init.pid):
                await checked("delete", self._runc.delete(self.id))
            if self._oom_watch is not None:
                self._oom_watch.cancel()
            for process in (self.init, *self._execs.values()):
                process.io.close()
            self._unmount()
            self._deleted = True
        ended = self.init.exit
        assert ended is not None
        deleted = events.TaskDelete(
            container_id=self.id,
            pid=self.init.pid,
            exit_status=ended.status,
            exited_at=timestamp(ended.at),
        )
        self._publish("delete", deleted)

    async def delete_exec(self, exec_id: str) -> Process:
        process = self.process(exec_id)
        async with process.lock:
            if process.status == Status.RUNNING:
                raise process.refuse("delete")
            await process.io.drain()
            process.io.close()
            self._execs.pop(exec_id, None)
        return process

    async def _kill_unstarted(self) -> None:
        async with self.init.lock:
            if self._checkpoint and not self.init.pid:
                self.init.end(Exit(0, time.time_ns()))
            elif self.init.status == Status.CREATED:
                with suppress(NotFound):  # it has just ended by itself
                    _signal(self.init.pid, signal.SIGKILL)
        if self.init.status == Status.CREATED:
            await self.init.exited

    async def _await_init_exit(self, promise: Promise[Exit]) -> None:
        """Tell of the init's exit, after those of all execs."""
        ended = await promise
        self._init_gone = True
        if not self._own_pid_namespace:
            await self._kill_stragglers()
        while self._live_execs:
            await next(iter(self._live_execs)).exited
        async with self.init.lock:
            if self.init.status == Status.PAUSED:
                await self._logged(self._runc.resume(self.id))
            self._ended(self.init, ended)

    async def _await_exec_exit(self, process: Process, promise: Promise[Exit]) -> None:
        ended = await promise
        async with process.lock:
            self._live_execs.discard(process)
            self._ended(process, ended)

    def _ended(self, process: Process, exit: Exit) -> None:
        process.end(exit)
        exited = events.TaskExit(
            container_id=self.id,
            id=process.id,
            pid=process.pid,
            exit_status=exit.status,
            exited_at=timestamp(exit.at),
        )
        self._publish("exit", exited)

    async def _kill_stragglers(self) -> None:
        """End what outlived an init that did not take its pid namespace with it."""
        if self.cgroup.pids():
            await self._logged(self._runc.kill(self.id, signal.SIGKILL, all=True))

    # Signals and limits

    async def kill(self, number: int, *, all: bool) -> None:
        """Send a signal to the init or to all; NotFound if it has ended."""
        async with self.init.lock:
            if self.init.status == Status.STOPPED and not all:
                raise NotFound("process already finished")
            if not all and self._may_signal(number):
                if self.init.status == Status.RUNNING and number != signal.SIGKILL:
                    await shortcuts.executed(self._host.loop, self.init.pid)
                _signal(self.init.pid, number)
            else:
                await self._runc.kill(self.id, number, all=all)

    def _may_signal(self, number: int) -> bool:
        """Whether the runtime's `kill` would do no more than send the signal to the init."""
        return (
            0 < number < signal.NSIG
            and self._own_pid_namespace
            and self.init.exit is None
            and self.init.status in (Status.CREATED, Status.RUNNING)
            and shortcuts.is_libcontainer(self._state, self.init.pid)
        )

    async def kill_exec(self, exec_id: str, number: int) -> None:
        process = self.process(exec_id)
        async with process.lock:
            if process.exit is not None:
                raise NotFound("process already finished")
            if not process.pid:
                raise FailedPrecondition("process not created")
            _signal(process.pid, number)

    async def pause(self) -> None:
        async with self.init.lock:
            if self.init.status != Status.RUNNING:
                raise self.init.refuse("pause")
            self.init.status = Status.PAUSING
            try:
                await checked("pause", self._runc.pause(self.id))
            except RuncError:
                self.init.status = Status.RUNNING
                raise
            self.init.status = Status.PAUSED
        self._publish("paused", events.TaskPaused(container_id=self.id))

    async def resume(self) -> None:
        async with self.init.lock:
            if self.init.status != Status.PAUSED:
                raise self.init.refuse("resume")
            await checked("resume", self._runc.resume(self.id))
            self.init.status = Status.RUNNING
        self._publish("resumed", events.TaskResumed(container_id=self.id))

    async def checkpoint(self, path: str, options: CheckpointOptions) -> None:
        """Write the state of all processes to the folder `path`, which then goes on, or ends.

        When it fails the container goes on, and nothing of it is left in the folder.
        """
        images = criu.Images(path)
        work = options.work_path or f"{self.bundle}/criu-work"
        async with self.init.lock:
            if self.init.status not in (Status.RUNNING, Status.PAUSED):
                raise self.init.refuse("checkpoint")
            plan = criu.plan(options, self.init.pid)
            env = plan.environment(f"{self.bundle}/criu.conf")
            flags = [*plan.flags, *([] if options.exit else ["--leave-running"])]
            if options.parent_path:
                flags += ["--parent-path", options.parent_path]
            os.makedirs(work, mode=0o700, exist_ok=True)
            try:
                images.prepare(plan)
                await self._runc.checkpoint(self.id, path, work, flags, env)
                images.keep()
            except OSError as error:
                images.discard()
                raise Unknown(f"checkpoint cannot be written: {error}") from error
            except RuncError as error:
                images.discard()
                reason = error.message + criu.told(f"{work}/dump.log")
                raise RuncError(f"OCI runtime checkpoint failed: {reason}") from error
            finally:
                if not options.work_path:
                    criu.remove_folder(work)
        checkpointed = events.TaskCheckpointed(container_id=self.id, checkpoint=path)
        self._publish("checkpointed", checkpointed)

    async def update(self, resources: bytes) -> None:
        """Change limits; `resources` is the JSON of the runtime spec's LinuxResources."""
        async with self.init.lock:
            if self.init.status == Status.STOPPED:
                raise Unknown("cannot update a stopped container")
            await checked("update", self._runc.update(self.id, resources))

    def status_of(self, process: Process) -> Status:
        """A process's status: in a paused container all are paused."""
        frozen = self.init.status in (Status.PAUSED, Status.PAUSING)
        if frozen and process.status != Status.STOPPED:
            return self.init.status
        return process.status

    def pids(self) -> list[tuple[int, str]]:
        """Every process of the container, with its exec's id or ""."""
        execs = {each.pid: each.id for each in self._execs.values() if each.exit is None}
        return [(pid, execs.get(pid, "")) for pid in self.cgroup.pids()]

    # Helpers

    def _mount(self, mounts: Sequence[Mount]) -> None:
        if not mounts:
            return
        try:
            os.makedirs(self._rootfs, mode=0o711, exist_ok=True)
            mount_all(mounts, Path(self._rootfs), volatile=True, scratch=Path(self.bundle))
        except OSError as error:
            raise Unknown(f"failed to mount rootfs component: {error}") from error
        self._mounted = True

    def _unmount(self) -> None:
        if self._mounted:
            unmount_all(Path(self._rootfs))
            self._mounted = False

    async def _logged(self, command: Awaitable[None]) -> None:
        try:
            await command
        except OrlopError as error:
            self._host.log.warning(str(error), container=self.id)

    def _report_oom(self) -> None:
        self._publish("oom", events.TaskOOM(container_id=self.id))

    def _publish(self, topic: str, message: Message) -> None:
        self._host.publisher.publish(f"/tasks/{topic}", message)


def _leads_pid_namespace(pid: int) -> bool:
    """Whether a process is the first of its pid namespace, all of which ends with it."""
    for line in files.read_or_empty(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1] == "1"
    return True


def _signal(pid: int, number: int) -> None:
    try:
        send_signal(pid, number)
    except ProcessLookupError as error:
        raise NotFound("process already finished") from error


def _object(exec_id: str, spec: bytes) -> dict[str, Any]:
    try:
        document = json.loads(spec)
    except ValueError as error:
        raise InvalidArgument(f'spec of exec "{exec_id}" is not JSON: {error}') from None
    if not isinstance(document, dict):
        raise InvalidArgument(f'spec of exec "{exec_id}" is not a JSON object')
    return document
