"""Starts a container's task from its record, and ends it, where no client is there to do so."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from orlop.containers import Container
from orlop.errors import FailedPrecondition, NotFound
from orlop.restart.rules import Rules
from orlop.rpc import CallContext
from orlop.runtime import TaskManager
from orlop.runtime.model import ProcessState, Stdio
from orlop.runtime.task import Task
from orlop.sys.mount import Mount
from orlop.wire.task_types_pb2 import STOPPED

_START_LIMIT = 60.0  # seconds that one start may take
_END_LIMIT = 20.0  # and one end, for which the daemon's own end waits


class Mounts(Protocol):
    """Where a root filesystem comes from; `mounts` raises NotFound."""

    def mounts(self, namespace: str, key: str) -> Sequence[Mount]: ...


class Reviver:
    """Does to tasks what a client would do.

    `close` breaks off the starts that are under way, not the ends: nobody might be left to know of
    the task of a container whose record is gone.
    """

    def __init__(self, tasks: TaskManager, snapshotters: Mapping[str, Mounts]) -> None:
        self._tasks = tasks
        self._snapshotters = snapshotters
        self._closing = CallContext()

    def close(self) -> None:
        self._closing.cancel()

    def task(self, namespace: str, id: str) -> Task | None:
        """The task of a container, if it has one."""
        try:
            return self._tasks.get(namespace, id)
        except NotFound:
            return None

    def state(self, task: Task | None) -> ProcessState | None:
        """A task's first process, None without a task; raises what the shim refuses with."""
        try:
            return task.state() if task is not None else None
        except NotFound:
            return None

    def revive(self, namespace: str, container: Container, rules: Rules) -> int:
        """A fresh task, started; its pid. What is left of the last one goes first.

        A start that fails leaves no task. Raises what tasks and snapshots raise.
        """
        self.end(namespace, container.id)
        terminal = _terminal(container)
        stdio = Stdio(rules.stdin, rules.log_uri, "" if terminal else rules.log_uri, terminal)
        rootfs = self._rootfs(namespace, container)
        with self._start_context(namespace) as ctx:
            self._tasks.create(ctx, namespace, container.id, rootfs=rootfs, stdio=stdio)
            try:
                return self._tasks.get(namespace, container.id).start(ctx)
            except BaseException:
                self.end(namespace, container.id)
                raise

    def end(self, namespace: str, id: str) -> None:
        """Kill a task if it runs, and delete it; fine without one."""
        ctx = CallContext(namespace=namespace, deadline=time.monotonic() + _END_LIMIT)
        with suppress(NotFound):
            task = self._tasks.get(namespace, id)
            if task.state().status != STOPPED:
                with suppress(NotFound):  # it has ended meanwhile
                    task.kill(ctx, signal.SIGKILL, all=True)
                task.wait(ctx)
            self._tasks.take_back(ctx, namespace, id)

    def _rootfs(self, namespace: str, container: Container) -> Sequence[Mount]:
        if not container.snapshot_key:
            return ()
        snapshotter = self._snapshotters.get(container.snapshotter)
        if snapshotter is None:
            raise FailedPrecondition(f'snapshotter "{container.snapshotter}" is not here')
        return snapshotter.mounts(namespace, container.snapshot_key)

    @contextmanager
    def _start_context(self, namespace: str) -> Iterator[CallContext]:
        ctx = CallContext(namespace=namespace, deadline=time.monotonic() + _START_LIMIT)
        self._closing.on_cancel(ctx.cancel)
        try:
            yield ctx
        finally:
            self._closing.forget(ctx.cancel)


def _terminal(container: Container) -> bool:
    spec = json.loads(container.spec.value) if container.spec is not None else {}
    return bool(spec.get("process", {}).get("terminal"))
