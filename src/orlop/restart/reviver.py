"""Starts a container's task from its record, and ends it, where no client is there to do so."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from orlop.containers import Container
from orlop.errors import FailedPrecondition, NotFound, OrlopError
from orlop.restart.rules import Rules
from orlop.rpc import CallContext
from orlop.runtime import TaskManager
from orlop.runtime.model import ProcessState, Stdio
from orlop.runtime.task import Task
from orlop.sys.mount import Mount
from orlop.wire.task_types_pb2 import STOPPED

_LIMIT = 60.0  # seconds that one start or end may take
_TAKE_BACK_LIMIT = 10.0  # the daemon's own end waits for that
_log = logging.getLogger(__name__)


class Mounts(Protocol):
    """Where a root filesystem comes from; `mounts` raises NotFound."""

    def mounts(self, namespace: str, key: str) -> Sequence[Mount]: ...


class Reviver:
    """Does to tasks what a client would do. `close` ends what is under way, but `take_back`."""

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

        A start that fails leaves no task, one that is broken off by `close` may. Raises what tasks
        and snapshots raise.
        """
        self.end(namespace, container.id)
        terminal = _terminal(container)
        stdio = Stdio(rules.stdin, rules.log_uri, "" if terminal else rules.log_uri, terminal)
        rootfs = self._rootfs(namespace, container)
        with self._context(namespace) as ctx:
            self._tasks.create(ctx, namespace, container.id, rootfs=rootfs, stdio=stdio)
            try:
                return self._tasks.get(namespace, container.id).start(ctx)
            except BaseException:
                if not self._closing.cancelled:  # or it may have started all the same
                    self.take_back(namespace, container.id)
                raise

    def end(self, namespace: str, id: str) -> None:
        """Kill a task if it runs, and delete it; fine without one."""
        with suppress(NotFound), self._context(namespace) as ctx:
            task = self._tasks.get(namespace, id)
            if task.state().status != STOPPED:
                _kill(task, ctx)
            self._tasks.delete(ctx, namespace, id)

    def take_back(self, namespace: str, id: str) -> None:
        """End a task that was made in vain, even while the daemon ends.

        With the container's record gone nobody would ask for it any more. What fails is told in
        the log.
        """
        ctx = CallContext(namespace=namespace, deadline=time.monotonic() + _TAKE_BACK_LIMIT)
        try:
            with suppress(NotFound):
                task = self._tasks.get(namespace, id)
                if task.exit is None:
                    _kill(task, ctx)
                self._tasks.take_back(ctx, namespace, id)
        except OrlopError as error:
            what = "was made in vain, and stays"
            _log.warning("namespace=%s task=%s %s: %s", namespace, id, what, error)

    def _rootfs(self, namespace: str, container: Container) -> Sequence[Mount]:
        if not container.snapshot_key:
            return ()
        snapshotter = self._snapshotters.get(container.snapshotter)
        if snapshotter is None:
            raise FailedPrecondition(f'snapshotter "{container.snapshotter}" is not here')
        return snapshotter.mounts(namespace, container.snapshot_key)

    @contextmanager
    def _context(self, namespace: str) -> Iterator[CallContext]:
        ctx = CallContext(namespace=namespace, deadline=time.monotonic() + _LIMIT)
        self._closing.on_cancel(ctx.cancel)
        try:
            yield ctx
        finally:
            self._closing.forget(ctx.cancel)


def _kill(task: Task, ctx: CallContext) -> None:
    with suppress(NotFound):  # it has ended meanwhile
        task.kill(ctx, signal.SIGKILL, all=True)
    task.wait(ctx)


def _terminal(container: Container) -> bool:
    spec = json.loads(container.spec.value) if container.spec is not None else {}
    return bool(spec.get("process", {}).get("terminal"))
