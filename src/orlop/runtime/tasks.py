"""The tasks of a daemon: made, found, listed, deleted, and cleared up after shims that died."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from google.protobuf.any_pb2 import Any

from orlop import tracing
from orlop.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
    Unknown,
)
from orlop.events import Publisher
from orlop.fork.worker import Spawner
from orlop.metadata import filters
from orlop.mounts import MountManager
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.rpc.reactor import Reactor
from orlop.runtime.bundle import Bundle, Bundles
from orlop.runtime.burial import Undertaker
from orlop.runtime.checkpoints import Checkpoints, without_network
from orlop.runtime.model import (
    ContainerLookup,
    ContainerRecord,
    Endpoint,
    Exit,
    Metric,
    NetworkPlan,
    NetworkPlanner,
    ProcessState,
    Stdio,
)
from orlop.runtime.moves import CgroupMoves
from orlop.runtime.sharing import LABEL, Shared
from orlop.runtime.shim import Shim
from orlop.runtime.shimlog import ShimLog
from orlop.runtime.shims import Shims
from orlop.runtime.task import QUERY_TIMEOUT, RECONNECTS, Task, create_request, exit_of
from orlop.sys.mount import Mount
from orlop.wire import task_v3_pb2 as wire

_log = logging.getLogger(__name__)

_DELETE_LIMIT = 120.0
_UNDO_LIMIT = 10.0
# A create that ends so leaves a shim that is not well; any other error is its considered answer.
_UNWELL = (Cancelled, DeadlineExceeded, Unavailable)


FindSandbox = Callable[[str, str], Bundle | None]
"""From a namespace and a sandbox's id to the sandbox's bundle, None where it does not run here."""


class TaskManager:
    """The tasks of all namespaces. Usable from any thread; the owner calls `close`.

    `sandbox` finds the shim of a container that belongs to a sandbox, `networks` plans networks.
    """

    def __init__(
        self,
        bundles: Bundles,
        shims: Shims,
        containers: ContainerLookup,
        publisher: Publisher,
        reactor: Reactor,
        checkpoints: Checkpoints,
        moves: CgroupMoves,
        mounts: MountManager,
        forks: Spawner,
        sandbox: FindSandbox = lambda *_: None,
        networks: NetworkPlanner | None = None,
    ) -> None:
        self._networks = networks
        self.checkpoints = checkpoints
        self._moves = moves
        self.mounts = mounts
        self._forks = forks
        self._sandbox = sandbox
        self.bundles = bundles
        self.shims = shims
        self._containers = containers
        self._publisher = publisher
        self._reactor = reactor
        self._lock = threading.Lock()
        self._tasks: dict[tuple[str, str], Task] = {}
        self._creating: set[tuple[str, str]] = set()
        self._ending: set[Task] = set()
        self._closing = CallContext()
        self.undertaker = Undertaker(shims, publisher, reactor, self)

    def stop(self) -> None:
        """The daemon is ending: what hangs in a shim is left to the next one."""
        self._closing.cancel()

    @contextmanager
    def _until_stop(self) -> Iterator[CallContext]:
        ctx = CallContext()
        self._closing.on_cancel(ctx.cancel)
        try:
            yield ctx
        finally:
            self._closing.forget(ctx.cancel)

    def close(self) -> None:
        """Let go of every shim; the containers live on."""
        with self._lock:
            tasks = list(self._tasks.values())
        self.undertaker.close()
        self.shims.close()
        for task in tasks:
            task.log.close()

    # Find

    def get(self, namespace: str, id: str) -> Task:
        """One task; raises NotFound."""
        with self._lock:
            task = self._tasks.get((namespace, id))
        if task is None:
            raise NotFound(f'task "{id}"')
        return task

    def recovered(self, namespace: str, id: str) -> bool:
        """Whether there is such a task, and an earlier daemon has made it."""
        with self._lock:
            task = self._tasks.get((namespace, id))
        return task is not None and task.recovered

    def everything(self) -> list[Task]:
        """The tasks of all namespaces."""
        with self._lock:
            return list(self._tasks.values())

    def _all(self, namespace: str) -> list[Task]:
        with self._lock:
            return [task for (space, _), task in self._tasks.items() if space == namespace]

    def states(self, namespace: str) -> list[ProcessState]:
        """The first process of every task, by id; tasks that cannot be reached are left out."""
        found, calls = [], []
        for task in self._all(namespace):
            if (known := task.known) is not None:
                found.append(known)
                continue
            with suppress(Unavailable):
                calls.append((task, task.begin_state()))
        deadline = time.monotonic() + QUERY_TIMEOUT
        for task, call in calls:
            with suppress(NotFound, Unavailable, DeadlineExceeded):
                found.append(task.read_state(call, max(0.0, deadline - time.monotonic())))
        return sorted(found, key=lambda state: state.id)

    def metrics(self, namespace: str, wanted: Iterable[str]) -> list[Metric]:
        """The statistics of the tasks that any of the filters match, by `id` and `namespace`.

        Tasks that cannot tell are left out. Raises Unknown for a bad filter, as containerd does.
        """
        try:
            chosen = filters.parse(wanted)
        except InvalidArgument as error:
            raise Unknown(str(error)) from None
        calls = []
        for task in self._all(namespace):
            record = filters.record({"id": task.id, "namespace": namespace})
            if not chosen.matches(record):
                continue
            try:
                calls.append((task, task.begin_stats()))
            except Unavailable:
                continue
        deadline = time.monotonic() + QUERY_TIMEOUT
        found = []
        for task, call in calls:
            try:
                found.append(task.read_stats(call, max(0.0, deadline - time.monotonic())))
            except OrlopError:
                continue
        return found

    # Create

    def create(
        self,
        ctx: CallContext,
        namespace: str,
        id: str,
        *,
        rootfs: Sequence[Mount] = (),
        stdio: Stdio | None = None,
        options: Any | None = None,
        runtime: str = "",
        endpoint: Endpoint | None = None,
        checkpoint: Descriptor | None = None,
    ) -> int:
        """Make the task of a container, ready to start; the pid of its first process.

        `options` and `runtime` win over those of the container's record. `endpoint` is where the
        shim of its sandbox listens, if a client knows. With a `checkpoint` the process is there
        only once it is started, and goes on where it was; the pid is 0 then. A create that fails
        leaves nothing. Raises NotFound without the container, AlreadyExists, InvalidArgument for
        an endpoint without a sandbox, and what the shim or its runtime refuse with.
        """
        container = self._containers.get(namespace, id)
        if endpoint is not None and not container.sandbox:
            raise InvalidArgument(f'container "{id}" is in no sandbox that has a task API')
        with self._claim(namespace, id):
            self.expect_start()
            spec = container.spec.value if container.spec is not None else b""
            shared = self._shared(namespace, container, spec)
            if shared is not None:
                spec = shared.spec
            with ExitStack() as undo:
                plan = self._plan(namespace, container, spec)
                if plan is not None:
                    undo.callback(plan.abandon)
                bundle = self.bundles.create(namespace, id, plan.spec if plan else spec)
                undo.callback(bundle.delete)
                if shared is not None:
                    shared.prepare(bundle.path, self._forks)
                if plan is not None:
                    plan.write(bundle.path)
                log = ShimLog(bundle.path / "log", self._reactor, id, namespace)
                undo.callback(log.close)
                if options is None or not options.value:
                    options = container.runtime_options
                images = self.checkpoints.find(ctx, bundle, checkpoint, options)
                undo.callback(self.mounts.release, namespace, id)
                rootfs = self.mounts.activate_for(namespace, id, rootfs)
                host = self._sandbox(namespace, container.sandbox) if container.sandbox else None
                if host is not None or endpoint is not None:
                    shim = self.shims.join(bundle, container.sandbox, host, endpoint)
                else:
                    shim = self.shims.start(
                        ctx, bundle, runtime or container.runtime, container.runtime_options
                    )
                request = create_request(bundle, rootfs, stdio or Stdio(), options, images)
                pid = self._create(ctx, bundle, shim, request)
                undo.pop_all()
            task = Task(bundle, shim, log, pid, stdio or Stdio())
            if plan is not None and images:
                task.when_restored = plan.restored
            self.register(task)
            with self._or_deleted(ctx, namespace, id, plan):
                if shared is not None:
                    shared.check()
                if plan is not None and not images:
                    with tracing.span("network.connect", {"container.id": id}):
                        plan.connect(pid)
        return pid

    def checkpoint(self, ctx: CallContext, task: Task, options: Any) -> list[Descriptor]:
        """As `Checkpoints.make`; of a container in networks without these."""
        if self._networks is not None and self._networks.connects(task.namespace, task.id):
            options = without_network(options)
        return self.checkpoints.make(ctx, task, options)

    def forget_network(self, task: Task) -> None:
        """The daemon that was to connect a restored task, once it goes on, is no more."""

        def refuse(_: int) -> None:
            raise FailedPrecondition(
                f'task "{task.id}" was restored, and orlopd has been started since: its '
                "network is not there; delete it, and restore it once more"
            )

        if self._networks is not None and self._networks.connects(task.namespace, task.id):
            task.when_restored = refuse

    def expect_start(self) -> None:
        """A client waits for a process that is to be started soon: have that go quickly."""
        self._moves.expect()

    def _shared(self, namespace: str, container: ContainerRecord, spec: bytes) -> Shared | None:
        if LABEL not in container.labels:
            return None
        bundle = self.bundles.folder / namespace / container.id
        return Shared(namespace, container, spec, bundle, self.pid_of)

    def _plan(self, namespace: str, container: ContainerRecord, spec: bytes) -> NetworkPlan | None:
        if self._networks is None:
            return None
        bundle = self.bundles.folder / namespace / container.id
        return self._networks.plan(namespace, container, spec, bundle, self.pid_of)

    @contextmanager
    def _or_deleted(
        self, ctx: CallContext, namespace: str, id: str, plan: NetworkPlan | None
    ) -> Iterator[None]:
        """A task that is not made whole is deleted again, before anybody knows of it."""
        try:
            yield
        except BaseException:
            with suppress(OrlopError):  # it may be the daemon's end that connects it no more
                self.take_back(ctx, namespace, id)
            if plan is not None:
                plan.abandon()
            raise

    def pid_of(self, namespace: str, id: str) -> int:
        """The first process of a task, 0 where there is none that runs or is about to."""
        with self._lock:
            task = self._tasks.get((namespace, id))
        return task.pid if task is not None and task.exit is None else 0

    @contextmanager
    def _claim(self, namespace: str, id: str) -> Iterator[None]:
        key = (namespace, id)
        with self._lock:
            if key in self._tasks or key in self._creating:
                raise AlreadyExists(f'task "{id}"')
            self._creating.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._creating.discard(key)

    def _create(
        self, ctx: CallContext, bundle: Bundle, shim: Shim, request: wire.CreateTaskRequest
    ) -> int:
        try:
            answer = shim.call("Create", request, wire.CreateTaskResponse, ctx=ctx)
        except BaseException as error:
            try:
                self.shims.abandon(shim, bundle, answers=not isinstance(error, _UNWELL))
            except (OrlopError, OSError) as failure:
                _log.warning("task=%s leftovers of a failed create: %s", bundle.id, failure)
            raise
        shim.settle()
        return answer.pid

    def register(self, task: Task) -> None:
        """Take a task in; its shim may be dead already."""
        with self._lock:
            self._tasks[task.namespace, task.id] = task
        task.registered()
        if task.shim.closed.is_set():
            self.undertaker.shim_died(task.shim)

    # The end

    def delete(self, ctx: CallContext, namespace: str, id: str) -> Exit:
        """Delete a task that has ended, or was never started; how it ended.

        It goes on when its call is cancelled: the shim, once told, deletes, and somebody must
        finish here. Only the daemon's end breaks it off, and the next one finishes. Raises
        NotFound, and Unknown for a running one.
        """
        with self._until_stop() as ending:
            return self._delete(ctx, namespace, id, ending, _DELETE_LIMIT)

    def take_back(self, ctx: CallContext, namespace: str, id: str) -> None:
        """Delete a task that is not to be there, during the daemon's end, too, as long as it waits.

        With no record, or none that is whole, nobody would ever ask for it. Raises as `delete`.
        """
        try:
            self.delete(ctx, namespace, id)
        except Cancelled:
            self._delete(ctx, namespace, id, None, _UNDO_LIMIT)

    def _delete(
        self, ctx: CallContext, namespace: str, id: str, ending: CallContext | None, limit: float
    ) -> Exit:
        task = self.get(namespace, id)
        for _ in range(RECONNECTS):
            shim = task.shim
            try:
                request = wire.DeleteRequest(id=id)
                with task.deleting():
                    answer = shim.call(
                        "Delete", request, wire.DeleteResponse, ctx=ending, timeout=limit
                    )
                    ended, ours = exit_of(answer), self.take(task)
                break
            except NotFound:
                # Where another delete has yet to tell its event, the shim is not to go.
                task.await_deletes(_UNDO_LIMIT)
                if ending is not None:
                    ending.check()  # that other one may have been given up, not ended
                if self.take(task):
                    # Somebody else has just deleted it there: what others wait for is how it ended.
                    self._finish(task, task.exit or Exit(255, time.time_ns()))
                else:  # and has yet to finish
                    with suppress(Unavailable):
                        task.after(shim, ctx)
                raise
            except Unavailable:
                if not shim.lost:
                    raise
            if (buried := task.after(shim, ctx)) is not None:
                return buried
        else:
            raise Unavailable(f'shim of task "{id}" breaks off every connection')
        if ours:
            self._finish(task, ended)
        return ended

    def take(self, task: Task) -> bool:
        """Whether the caller is the one to end a task; nobody else is from now on."""
        with self._lock:
            current = self._tasks.get((task.namespace, task.id)) is task
            if not current or task in self._ending:
                return False
            self._ending.add(task)
        return True

    def _finish(self, task: Task, ended: Exit) -> None:
        try:
            self.shims.release(task.shim, task.bundle)
        finally:
            self.remove(task, ended)

    def remove(self, task: Task, ended: Exit) -> None:
        """Forget a task that was taken, and all that it had here."""
        task.log.close()
        try:
            task.bundle.delete()
        except OSError as error:
            _log.warning("namespace=%s task=%s bundle stays: %s", task.namespace, task.id, error)
        try:
            self.mounts.release(task.namespace, task.id)
            if self._networks is not None:
                self._networks.release(task.namespace, task.id)
        finally:
            with self._lock:
                self._tasks.pop((task.namespace, task.id), None)
                self._ending.discard(task)
            task.end(ended)

    def of_shim(self, shim: Shim) -> list[Task]:
        """Those that are reached by a connection."""
        with self._lock:
            return [task for task in self._tasks.values() if task.shim is shim]

    def note_exit(self, namespace: str, id: str, ended: Exit) -> bool:
        """A shim has told how a task's first process ended; False if that was told before."""
        with self._lock:
            task = self._tasks.get((namespace, id))
        # An event of an earlier task of this name may be late.
        return task is None or task.pid not in (0, ended.pid) or task.note_exit(ended)
