"""One task: what its shim can be asked to do with it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from orlop.errors import Cancelled, DeadlineExceeded, NotFound, OrlopError, Unavailable
from orlop.rpc import CallContext
from orlop.rpc.context import validate_identifier
from orlop.rpc.convert import nanoseconds
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Exit, Metric, ProcessInfo, ProcessState, Stdio
from orlop.runtime.shim import Answer, PendingCall, Shim
from orlop.runtime.shimlog import ShimLog
from orlop.sys.mount import Mount
from orlop.wire import task_v3_pb2 as wire
from orlop.wire.task_types_pb2 import Status
from orlop.wire.types_pb2 import Mount as WireMount

QUERY_TIMEOUT = 2.0
"""Seconds in which a shim must tell a state or statistics."""
RECONNECTS = 10
"""How often a call is made again because the connection, not the shim, was lost."""
BURIAL_TIMEOUT = 15.0
"""Seconds in which a task whose shim has died must be cleared up."""


class Task:
    """A task that is registered. Every method raises NotFound for an exec that is not there and
    when the task is deleted meanwhile, Unavailable when the shim is lost, and what the shim
    refuses with.

    `pid` is that of the task's first process, 0 where it is not known; `exit` is how it ended, once
    its shim has told, or that was told in its place; `recovered` says that an earlier daemon made
    it. `when_restored` connects one that is made from a checkpoint.
    """

    def __init__(
        self, bundle: Bundle, shim: Shim, log: ShimLog, pid: int = 0, stdio: Stdio | None = None
    ) -> None:
        self.namespace = bundle.namespace
        self.id = bundle.id
        self.bundle = bundle
        self.shim = shim
        self.log = log
        self.pid = pid
        self.exit: Exit | None = None
        self._told: Exit | None = None
        self._told_for = False
        self.recovered = False
        self.when_restored: Callable[[int], None] | None = None
        self._stdio = stdio
        self._known: ProcessState | None = None
        self._changes = 0
        self._changed = threading.Condition()
        self._deletes = 0
        self._gone: Exit | None = None

    # What is known of the first process: a built-in shim need not be woken to say it again.

    @property
    def known(self) -> ProcessState | None:
        """The first process as its shim told it last, if nothing has happened to either since."""
        return None if self.shim.lost else self._known

    def note_exit(self, ended: Exit) -> bool:
        """The shim has told how the first process ended; False if that has been told before.

        In its place, or by itself: who is not answered in time says it again.
        """
        with self._changed:
            if self._told_for or self._told == ended:
                return False
            self.exit = self._told = ended
        self._change()
        return True

    def tell_exit(self, ended: Exit) -> Exit:
        """How the first process ended, which is to be told if that is what the caller says: its
        shim is dead, and has told nothing."""
        with self._changed:
            if self.exit is None:
                self.exit, self._told_for = ended, True
            return self.exit

    def _change(self) -> int:
        with self._changed:
            self._changes += 1
            self._known = None
            return self._changes

    def _learn(self, state: ProcessState, changes: int) -> None:
        """Take what the shim has told, unless something happened after `changes`."""
        with self._changed:
            if changes == self._changes and self.shim.own and state.status != Status.UNKNOWN:
                self._known = state

    def registered(self) -> None:
        """From now on exits are noted, so that what the shim tells can be believed for long."""
        self._change()

    def reconnect(self, lost: Shim, shim: Shim) -> bool:
        """The shim lives after all, and is reached by another connection than the lost one.

        Whether it was still that one: False when somebody else has seen to it.
        """
        with self._changed:
            if self.shim is not lost:
                return False
            self.shim = shim
            self._changed.notify_all()
        return True

    def end(self, ended: Exit) -> None:
        """The task is no more: deleted, or cleared up after its shim."""
        with self._changed:
            self._gone = ended
            self._changed.notify_all()

    def _call(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        ctx: CallContext | None,
        timeout: float | None = None,
    ) -> Answer:
        shim = self.shim
        try:
            return shim.call(method, request, answer, ctx=ctx, timeout=timeout)
        except Unavailable:
            # Its shim leaves with the task: whoever asks just then asks for what is gone.
            if ctx is not None and shim.lost and self.after(shim, ctx) is not None:
                raise NotFound(f'task "{self.id}"') from None
            raise

    def _do(self, method: str, request: Message, ctx: CallContext) -> None:
        self._call(method, request, Empty, ctx)

    def start(self, ctx: CallContext, exec_id: str = "") -> int:
        """Start the task, or one of its execs; the pid."""
        request = wire.StartRequest(id=self.id, exec_id=exec_id)
        changes = self._changes if exec_id else self._change()
        pid = self._call("Start", request, wire.StartResponse, ctx).pid
        if not exec_id:
            self.pid = pid
            self._connect(ctx, pid)
            if self._stdio is not None:
                state = ProcessState(self.id, pid, Status.RUNNING, self._stdio, None)
                self._learn(state, changes)
        return pid

    def _connect(self, ctx: CallContext, pid: int) -> None:
        """One that was restored has a process only now; one without its network is killed."""
        if self.when_restored is None:
            return
        try:
            self.when_restored(pid)
        except BaseException:
            with suppress(OrlopError):
                self.kill(ctx, signal.SIGKILL, all=True)
            raise
        self.when_restored = None

    def exec(self, ctx: CallContext, exec_id: str, stdio: Stdio, spec: Any) -> None:
        """Add a process, to be started later; `spec` is the JSON of the runtime spec's Process."""
        validate_identifier("exec", exec_id)
        request = wire.ExecProcessRequest(
            id=self.id,
            exec_id=exec_id,
            terminal=stdio.terminal,
            stdin=stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
            spec=spec,
        )
        self._do("Exec", request, ctx)

    def delete_exec(self, ctx: CallContext, exec_id: str) -> Exit:
        """Forget an exec that has ended, or was never started."""
        validate_identifier("exec", exec_id)
        request = wire.DeleteRequest(id=self.id, exec_id=exec_id)
        return exit_of(self._call("Delete", request, wire.DeleteResponse, ctx))

    def kill(self, ctx: CallContext, number: int, exec_id: str = "", *, all: bool = False) -> None:
        """Send a signal; NotFound when the process has ended."""
        self._do("Kill", wire.KillRequest(id=self.id, exec_id=exec_id, signal=number, all=all), ctx)

    def resize(self, ctx: CallContext, exec_id: str, width: int, height: int) -> None:
        request = wire.ResizePtyRequest(id=self.id, exec_id=exec_id, width=width, height=height)
        self._do("ResizePty", request, ctx)

    def close_stdin(self, ctx: CallContext, exec_id: str) -> None:
        self._do("CloseIO", wire.CloseIORequest(id=self.id, exec_id=exec_id, stdin=True), ctx)

    def pause(self, ctx: CallContext) -> None:
        with self._changing():
            self._do("Pause", wire.PauseRequest(id=self.id), ctx)

    def resume(self, ctx: CallContext) -> None:
        with self._changing():
            self._do("Resume", wire.ResumeRequest(id=self.id), ctx)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Nothing that is told meanwhile stands."""
        self._change()
        try:
            yield
        finally:
            self._change()

    def update(self, ctx: CallContext, resources: Any, annotations: dict[str, str]) -> None:
        """Change limits; `resources` is the JSON of the runtime spec's LinuxResources."""
        request = wire.UpdateTaskRequest(id=self.id, resources=resources, annotations=annotations)
        self._do("Update", request, ctx)

    def checkpoint(self, ctx: CallContext, path: str, options: Any) -> None:
        """Have the state of all processes written to the folder `path`."""
        self._do(
            "Checkpoint", wire.CheckpointTaskRequest(id=self.id, path=path, options=options), ctx
        )

    def pids(self, ctx: CallContext) -> list[ProcessInfo]:
        """Every process in the container."""
        answer = self._call("Pids", wire.PidsRequest(id=self.id), wire.PidsResponse, ctx)
        return [
            ProcessInfo(each.pid, each.info if each.HasField("info") else None)
            for each in answer.processes
        ]

    def begin_state(self) -> PendingCall[wire.StateResponse]:
        """Ask for the first process's state; `read_state` takes the answer."""
        request = wire.StateRequest(id=self.id)
        return self.shim.begin("State", request, wire.StateResponse, QUERY_TIMEOUT)

    def read_state(self, call: PendingCall[wire.StateResponse], timeout: float) -> ProcessState:
        """The answer; a shim that cannot tell gives a process of status UNKNOWN."""
        return _state(self.id, lambda: call.result(timeout))

    def state(self, exec_id: str = "", ctx: CallContext | None = None) -> ProcessState:
        """A process as it is; DeadlineExceeded after two seconds.

        Only with a `ctx` it is waited for what becomes of a task whose shim is lost.
        """
        changes, known = self._changes, self.known
        if known is not None and not exec_id:
            return known
        request = wire.StateRequest(id=self.id, exec_id=exec_id)
        state = _state(
            exec_id or self.id,
            lambda: self._call("State", request, wire.StateResponse, ctx, QUERY_TIMEOUT),
        )
        if not exec_id:
            self.pid = self.pid or state.pid  # an earlier daemon's may not have been told in time
            self._learn(state, changes)
        return state

    def begin_stats(self) -> PendingCall[wire.StatsResponse]:
        """Ask for statistics; `read_stats` takes the answer."""
        return self.shim.begin(
            "Stats", wire.StatsRequest(id=self.id), wire.StatsResponse, QUERY_TIMEOUT
        )

    def read_stats(self, call: PendingCall[wire.StatsResponse], timeout: float) -> Metric:
        return Metric(self.id, time.time_ns(), call.result(timeout).stats)

    def wait(self, ctx: CallContext, exec_id: str = "") -> Exit:
        """Wait until a process has ended; ends early, with Cancelled, when the call does.

        A first process whose shim dies has ended when all is cleared up.
        """
        request = wire.WaitRequest(id=self.id, exec_id=exec_id)
        for _ in range(RECONNECTS):
            shim = self.shim
            try:
                answer = shim.call("Wait", request, wire.WaitResponse, ctx=ctx)
                if not exec_id:
                    self._change()  # its event may be on its way still
                return exit_of(answer)
            except Unavailable:
                if not shim.lost:
                    raise
                ended = self.after(shim, ctx)
                if ended is not None and exec_id:
                    raise
            if ended is not None:
                return ended
        raise Unavailable(f'shim of task "{self.id}" breaks off every connection')

    @contextmanager
    def deleting(self) -> Iterator[None]:
        """A delete is under way in the shim meanwhile."""
        with self._changed:
            self._deletes += 1
        try:
            yield
        finally:
            with self._changed:
                self._deletes -= 1
                self._changed.notify_all()

    def await_deletes(self, limit: float) -> None:
        """Wait until no delete is under way, or for `limit` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._deletes, limit)

    def after(self, lost: Shim, ctx: CallContext) -> Exit | None:
        """Wait until all is settled after a lost shim.

        How the task ended, or None when it goes on with another connection.
        """

        def settled() -> bool:
            return self._gone is not None or self.shim is not lost or ctx.cancelled

        ctx.on_cancel(self._wake)
        with self._changed:
            self._changed.wait_for(settled, BURIAL_TIMEOUT)
            if self._gone is None and self.shim is lost:
                ctx.check()
                raise Unavailable(f'shim of task "{self.id}" is lost')
            return self._gone

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _state(id: str, ask: Callable[[], wire.StateResponse]) -> ProcessState:
    try:
        answer = ask()
    except (Cancelled, NotFound, Unavailable, DeadlineExceeded):
        raise
    except OrlopError:
        return ProcessState(id, 0, Status.UNKNOWN, Stdio(), None)
    return ProcessState(
        id,
        answer.pid,
        answer.status,
        Stdio(answer.stdin, answer.stdout, answer.stderr, answer.terminal),
        exit_of(answer) if answer.status == Status.STOPPED else None,
    )


def exit_of(answer: wire.StateResponse | wire.WaitResponse | wire.DeleteResponse) -> Exit:
    """How a process ended, by a shim's answer."""
    pid = 0 if isinstance(answer, wire.WaitResponse) else answer.pid
    return Exit(answer.exit_status, nanoseconds(answer.exited_at), pid)


def create_request(
    bundle: Bundle, rootfs: Sequence[Mount], stdio: Stdio, options: Any | None, images: str
) -> wire.CreateTaskRequest:
    """What a shim is asked for a new task in a bundle."""
    return wire.CreateTaskRequest(
        id=bundle.id,
        bundle=str(bundle.path),
        rootfs=[
            WireMount(type=m.type, source=m.source, target=m.target, options=m.options)
            for m in rootfs
        ],
        terminal=stdio.terminal,
        stdin=stdio.stdin,
        stdout=stdio.stdout,
        stderr=stdio.stderr,
        checkpoint=images,
        options=options,
    )
