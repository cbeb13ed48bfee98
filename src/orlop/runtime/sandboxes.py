"""Sandboxes that shims run: made, asked, ended, and found again (the controller `shim`).

A sandbox has a bundle of its own, beside those of tasks. Its shim serves the Sandbox service, and
the Task service for the containers in it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from orlop.errors import AlreadyExists, NotFound, OrlopError, Unavailable
from orlop.events import Publisher
from orlop.rpc import CallContext
from orlop.rpc.convert import timestamp
from orlop.rpc.reactor import Reactor
from orlop.runtime.bundle import Bundle, Bundles
from orlop.runtime.burial import RETRY
from orlop.runtime.model import Endpoint, Exit
from orlop.runtime.shim import Shim
from orlop.runtime.shimlog import ShimLog
from orlop.runtime.shims import Shims
from orlop.runtime.task import BURIAL_TIMEOUT, RECONNECTS
from orlop.sys.mount import Mount
from orlop.wire import runtime_sandbox_pb2 as wire
from orlop.wire.events_pb2 import SandboxCreate, SandboxExit, SandboxStart
from orlop.wire.types_pb2 import Mount as WireMount
from orlop.wire.types_pb2 import Platform

FOLDER = "io.containerd.sandbox.controller.v1.shim"
_SERVICE = "containerd.runtime.sandbox.v1.Sandbox"
_QUERY_TIMEOUT = 5.0
_PARALLEL = 16
_HANDS = 4  # a shim that hangs must not keep the others unburied
_UNKNOWN_STATUS = 255
_log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)


class RunningSandbox:
    """A sandbox with its shim, by whatever connection that is reached now."""

    def __init__(self, bundle: Bundle, shim: Shim, log: ShimLog) -> None:
        self.bundle = bundle
        self.shim = shim
        self.log = log
        self.stranded = False
        self.leaving = 0
        """How many calls are shutting it down: that its shim ends is what they want."""
        self._changed = threading.Condition()
        self._removed = False
        self._ended: wire.WaitSandboxResponse | None = None

    def reconnect(self, lost: Shim, shim: Shim) -> bool:
        """The shim lives after all; whether this is the connection by which it is reached."""
        with self._changed:
            if self.shim is not lost:
                return False
            self.shim = shim
            self._changed.notify_all()
        return True

    def end(self, ended: wire.WaitSandboxResponse | None) -> None:
        """Nothing is left of it; `ended` is how, if it was cleared up after its shim."""
        with self._changed:
            self._removed, self._ended = True, ended
            self._changed.notify_all()

    def after(self, lost: Shim, ctx: CallContext) -> wire.WaitSandboxResponse | None:
        """Wait until all is settled after a lost shim.

        How the sandbox ended, or None when it goes on with another connection. Raises NotFound for
        one that was shut down.
        """
        if not self._wait(lambda: self._removed or self.shim is not lost, ctx):
            raise Unavailable(f'shim of sandbox "{self.bundle.id}" is lost')
        if self._removed and self._ended is None:
            raise NotFound(f'sandbox "{self.bundle.id}"')
        return self._ended

    def await_removal(self, ctx: CallContext) -> None:
        """Wait until somebody else, who ends it, has removed it."""
        if not self._wait(lambda: self._removed, ctx):
            raise Unavailable(f'sandbox "{self.bundle.id}" is still being removed')

    def _wait(self, settled: Callable[[], bool], ctx: CallContext) -> bool:
        """Whether it has come to that in time."""

        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        ctx.on_cancel(wake)
        with self._changed:
            self._changed.wait_for(lambda: settled() or ctx.cancelled, BURIAL_TIMEOUT)
            if not settled():
                ctx.check()
            return settled()


class SandboxManager:
    """The sandboxes of all namespaces. Usable from any thread; the owner calls `close`."""

    def __init__(
        self, bundles: Bundles, shims: Shims, publisher: Publisher, reactor: Reactor
    ) -> None:
        self._bundles = bundles
        self._shims = shims
        self._publisher = publisher
        self._reactor = reactor
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], RunningSandbox] = {}
        self._creating: set[tuple[str, str]] = set()
        self._undertaker = ThreadPoolExecutor(_HANDS, thread_name_prefix="sandboxes")
        shims.on_death.append(self._shim_died)

    def close(self) -> None:
        """Let go of the shims, which live on."""
        self._undertaker.shutdown(wait=True)
        with self._lock:
            for each in self._running.values():
                each.log.close()

    def get(self, namespace: str, id: str) -> RunningSandbox:
        """One sandbox; raises NotFound."""
        with self._lock:
            found = self._running.get((namespace, id))
        if found is None:
            raise NotFound(f'sandbox "{id}"')
        return found

    def bundle(self, namespace: str, id: str) -> Bundle | None:
        """Where the shim of a sandbox is written down, None for one that does not run here."""
        with suppress(NotFound):
            return self.get(namespace, id).bundle
        return None

    def create(
        self,
        ctx: CallContext,
        namespace: str,
        id: str,
        *,
        runtime: str,
        runtime_options: Any | None = None,
        spec: bytes = b"{}",
        rootfs: Sequence[Mount] = (),
        options: Any | None = None,
        netns_path: str = "",
        annotations: dict[str, str] | None = None,
    ) -> None:
        """Start the sandbox's shim and have it make the sandbox.

        A create that fails leaves nothing. Raises AlreadyExists, and what the shim refuses with.
        """
        key = (namespace, id)
        with self._lock:
            if key in self._running or key in self._creating:
                raise AlreadyExists(f'sandbox "{id}"')
            self._creating.add(key)
        try:
            with ExitStack() as undo:
                bundle = self._bundles.create(namespace, id, spec)
                undo.callback(bundle.delete)
                log = ShimLog(bundle.path / "log", self._reactor, id, namespace)
                undo.callback(log.close)
                shim = self._shims.start(ctx, bundle, runtime, runtime_options)
                undo.callback(self._abandon, shim, bundle)
                request = wire.CreateSandboxRequest(
                    sandbox_id=id,
                    bundle_path=str(bundle.path),
                    rootfs=[
                        WireMount(type=m.type, source=m.source, target=m.target, options=m.options)
                        for m in rootfs
                    ],
                    options=options,
                    netns_path=netns_path,
                    annotations=annotations or {},
                )
                shim.ask(_SERVICE, "CreateSandbox", request, wire.CreateSandboxResponse, ctx=ctx)
                shim.settle()
                undo.pop_all()
            with self._lock:
                self._running[key] = RunningSandbox(bundle, shim, log)
            if shim.closed.is_set():
                self._shim_died(shim)  # between its answer and now: nobody was told
        finally:
            with self._lock:
                self._creating.discard(key)
        self._publisher.publish(namespace, "/sandboxes/create", SandboxCreate(sandbox_id=id))

    def _abandon(self, shim: Shim, bundle: Bundle) -> None:
        request = wire.ShutdownSandboxRequest(sandbox_id=bundle.id)
        answer, limit = wire.ShutdownSandboxResponse, _QUERY_TIMEOUT
        try:
            with suppress(NotFound):  # it may have been made although nobody waited for it
                shim.ask(_SERVICE, "ShutdownSandbox", request, answer, timeout=limit)
        except OrlopError as error:
            _log.warning("sandbox=%s cannot be shut down: %s", bundle.id, error)
        try:
            self._shims.abandon(shim, bundle, answers=False)
        except (OrlopError, OSError) as error:
            _log.warning("sandbox=%s leaves something: %s", bundle.id, error)

    def start(self, ctx: CallContext, namespace: str, id: str) -> wire.StartSandboxResponse:
        """Start it; what the shim says of it. One that does not start is removed."""
        request = wire.StartSandboxRequest(sandbox_id=id)
        found = self.get(namespace, id)
        try:
            answer = self._ask(found, ctx, "StartSandbox", request, wire.StartSandboxResponse)
        except OrlopError:
            if not found.shim.lost:  # else it is buried
                self._give_up(found)
            raise
        self._publisher.publish(namespace, "/sandboxes/start", SandboxStart(sandbox_id=id))
        return answer

    def stop(self, ctx: CallContext, namespace: str, id: str, seconds: int) -> None:
        """Stop it, in so many seconds; fine for one that is not there, or whose shim is lost."""
        request = wire.StopSandboxRequest(sandbox_id=id, timeout_secs=seconds)
        with suppress(NotFound, Unavailable):
            found = self.get(namespace, id)
            self._ask(found, ctx, "StopSandbox", request, wire.StopSandboxResponse)

    def wait(self, ctx: CallContext, namespace: str, id: str) -> wire.WaitSandboxResponse:
        """Wait until it has stopped, which is announced then, or its shim has died."""
        request = wire.WaitSandboxRequest(sandbox_id=id)
        found = self.get(namespace, id)
        for _ in range(RECONNECTS):
            shim = found.shim
            try:
                ended = self._ask(found, ctx, "WaitSandbox", request, wire.WaitSandboxResponse)
            except Unavailable:
                if not shim.lost:
                    raise
            else:
                self._publish_exit(namespace, id, ended)
                return ended
            if (buried := found.after(shim, ctx)) is not None:
                return buried
        raise Unavailable(f'shim of sandbox "{id}" breaks off every connection')

    def _publish_exit(self, namespace: str, id: str, ended: wire.WaitSandboxResponse) -> None:
        exited = SandboxExit(
            sandbox_id=id, exit_status=ended.exit_status, exited_at=ended.exited_at
        )
        self._publisher.publish(namespace, "/sandboxes/exit", exited)

    def status(
        self, ctx: CallContext, namespace: str, id: str, *, verbose: bool
    ) -> wire.SandboxStatusResponse:
        """What its shim says; one that is not there has no state, and ended some time ago."""
        request = wire.SandboxStatusRequest(sandbox_id=id, verbose=verbose)
        try:
            found = self.get(namespace, id)
            return self._ask(found, ctx, "SandboxStatus", request, wire.SandboxStatusResponse)
        except NotFound:
            now = timestamp(time.time_ns())
            return wire.SandboxStatusResponse(sandbox_id=id, exited_at=now)

    def platform(self, ctx: CallContext, namespace: str, id: str) -> Platform:
        """What its containers run on."""
        request = wire.PlatformRequest(sandbox_id=id)
        found = self.get(namespace, id)
        return self._ask(found, ctx, "Platform", request, wire.PlatformResponse).platform

    def endpoint(self, namespace: str, id: str) -> Endpoint | None:
        """Where its shim serves the Task API, None for a sandbox that is not there."""
        bundle = self.bundle(namespace, id)
        return bundle.endpoint if bundle is not None else None

    def metrics(self, ctx: CallContext, namespace: str, id: str) -> wire.SandboxMetricsResponse:
        request = wire.SandboxMetricsRequest(sandbox_id=id)
        found = self.get(namespace, id)
        return self._ask(found, ctx, "SandboxMetrics", request, wire.SandboxMetricsResponse)

    def shutdown(self, ctx: CallContext, namespace: str, id: str) -> None:
        """End it, and its shim once no container is left; fine for one that is not there."""
        try:
            found = self.get(namespace, id)
        except NotFound:
            return
        request = wire.ShutdownSandboxRequest(sandbox_id=id)
        with self._leaving(found):
            with suppress(NotFound):
                self._ask(found, ctx, "ShutdownSandbox", request, wire.ShutdownSandboxResponse)
            if self._take(found):
                self._shims.release(found.shim, found.bundle)
                self._remove(found)
                return
        found.await_removal(ctx)

    @contextmanager
    def _leaving(self, sandbox: RunningSandbox) -> Iterator[None]:
        """Let the shim end without being buried, unless nothing comes of the shutdown."""
        with self._lock:
            sandbox.leaving += 1
        try:
            yield
        finally:
            with self._lock:
                sandbox.leaving -= 1
            if sandbox.shim.closed.is_set():
                self._shim_died(sandbox.shim)

    def _give_up(self, sandbox: RunningSandbox) -> None:
        """Remove one that did not start."""
        bundle, shim = sandbox.bundle, sandbox.shim
        if not self._take(sandbox):
            return
        self._abandon(shim, bundle)
        self._remove(sandbox)

    def _ask(
        self,
        sandbox: RunningSandbox,
        ctx: CallContext,
        method: str,
        request: Message,
        answer: type[Answer],
    ) -> Answer:
        return sandbox.shim.ask(_SERVICE, method, request, answer, ctx=ctx)

    # Shims that died, daemons that were

    def _shim_died(self, shim: Shim) -> None:
        """On the thread of a connection, which must not wait."""
        with suppress(RuntimeError):  # this daemon is ending itself
            self._undertaker.submit(self._bury, shim)

    def _bury(self, shim: Shim) -> None:
        with self._lock:
            found = [each for each in self._running.values() if each.shim is shim]
        for each in found:
            try:
                self._bury_one(each, shim)
            except Exception:  # noqa: BLE001 - one sandbox's fault must not leave others unburied
                _log.exception("sandbox=%s after its shim", each.bundle.id)

    def _bury_one(self, sandbox: RunningSandbox, shim: Shim) -> None:
        bundle = sandbox.bundle
        if sandbox.leaving or self._reconnected(sandbox, shim) or not self._take(sandbox):
            return
        _log.warning("namespace=%s sandbox=%s shim has died", shim.namespace, bundle.id)
        self._shims.forget(sandbox.shim)
        try:
            last = self._shims.clean_up(bundle)
        except (OrlopError, OSError) as error:
            _log.warning("sandbox=%s after its shim: %s", bundle.id, error)
            last = Exit(_UNKNOWN_STATUS, time.time_ns())
        ended = wire.WaitSandboxResponse(exit_status=last.status, exited_at=timestamp(last.at))
        self._publish_exit(bundle.namespace, bundle.id, ended)
        self._remove(sandbox, ended)

    def _reconnected(self, sandbox: RunningSandbox, lost: Shim) -> bool:
        """Whether only the connection was lost: the shim listens."""
        try:
            shim = self._shims.connect(sandbox.bundle)
        except (OrlopError, FileNotFoundError):
            return False
        except OSError as error:  # for want of descriptors or memory: says nothing of the shim
            if not sandbox.stranded:
                _log.warning("sandbox=%s shim is lost: %s", sandbox.bundle.id, error)
            sandbox.stranded = True
            self._reactor.call_later(RETRY, lambda: self._shim_died(lost))
            return True
        sandbox.stranded = False
        # By its bundle, which may be that of another one by now.
        mine = self._is_current(sandbox) and sandbox.reconnect(lost, shim)
        self._shims.forget(lost if mine else shim)
        if shim.closed.is_set():
            # One that is dying accepts for a moment. Nobody was told of this end.
            self._reactor.call_later(RETRY, lambda: self._shim_died(shim))
        return True

    def _take(self, sandbox: RunningSandbox) -> bool:
        """Whether the caller is the one to end a sandbox."""
        bundle = sandbox.bundle
        with self._lock:
            if not self._is_current(sandbox):
                return False
            del self._running[bundle.namespace, bundle.id]
        return True

    def _is_current(self, sandbox: RunningSandbox) -> bool:
        return self._running.get((sandbox.bundle.namespace, sandbox.bundle.id)) is sandbox

    def _remove(
        self, sandbox: RunningSandbox, ended: wire.WaitSandboxResponse | None = None
    ) -> None:
        sandbox.log.close()
        try:
            sandbox.bundle.delete()
        except OSError as error:
            _log.warning("sandbox=%s bundle stays: %s", sandbox.bundle.id, error)
        sandbox.end(ended)

    def recover(self) -> None:
        """Adopt the sandboxes of an earlier daemon, before its tasks; clear up after the others.

        Takes a few seconds at most, however many shims hang.
        """
        bundles = self._bundles.all()
        if bundles:
            with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="recovery") as pool:
                list(pool.map(self._recover, bundles))

    def _recover(self, bundle: Bundle) -> None:
        name = f"namespace={bundle.namespace} sandbox={bundle.id}"
        try:
            self._adopt(bundle, name)
        except (OrlopError, FileNotFoundError) as error:
            _log.info("%s is gone: %s", name, error)
            try:
                self._shims.clean_up(bundle)
                bundle.delete()
            except (OrlopError, OSError) as failure:
                _log.warning("%s bundle stays: %s", name, failure)
        except OSError as error:
            # This daemon lacks descriptors or memory: that says nothing of the sandbox.
            _log.error("%s is left alone, and not managed: %s", name, error)

    def _adopt(self, bundle: Bundle, name: str) -> None:
        """Raises OrlopError when it is certainly no more."""
        log = ShimLog(bundle.path / "log", self._reactor, bundle.id, bundle.namespace)
        try:
            shim = self._shims.connect(bundle)
            try:
                request = wire.PingRequest(sandbox_id=bundle.id)
                shim.ask(
                    _SERVICE, "PingSandbox", request, wire.PingResponse, timeout=_QUERY_TIMEOUT
                )
            except NotFound:
                self._shims.release(shim, bundle)  # it was never made
                raise
            except OrlopError as error:
                _log.warning("%s does not answer: %s", name, error)
        except BaseException:
            log.close()
            raise
        with self._lock:
            self._running[bundle.namespace, bundle.id] = RunningSandbox(bundle, shim, log)
        if shim.closed.is_set():
            self._shim_died(shim)
