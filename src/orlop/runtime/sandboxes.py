"""Sandboxes that shims run: made, asked, ended, and found again (the controller `shim`).

A sandbox has a bundle of its own, beside those of tasks. Its shim serves the Sandbox service, and
the Task service for the containers in it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from orlop.errors import AlreadyExists, NotFound, OrlopError
from orlop.events import Publisher
from orlop.rpc import CallContext
from orlop.rpc.ttrpc.reactor import Reactor
from orlop.runtime.bundle import Bundle, Bundles
from orlop.runtime.shim import Shim
from orlop.runtime.shimlog import ShimLog
from orlop.runtime.shims import Shims
from orlop.sys.mount import Mount
from orlop.wire import runtime_sandbox_pb2 as wire
from orlop.wire.events_pb2 import SandboxCreate, SandboxExit, SandboxStart
from orlop.wire.types_pb2 import Mount as WireMount

FOLDER = "io.containerd.sandbox.controller.v1.shim"
_SERVICE = "containerd.runtime.sandbox.v1.Sandbox"
_QUERY_TIMEOUT = 5.0
_log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True, eq=False)
class RunningSandbox:
    """A sandbox with its shim."""

    bundle: Bundle
    shim: Shim
    log: ShimLog


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
        self._undertaker = ThreadPoolExecutor(1, thread_name_prefix="sandboxes")
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
                shim = self._shims.start(bundle, runtime, runtime_options)
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
        finally:
            with self._lock:
                self._creating.discard(key)
        self._publisher.publish(namespace, "/sandboxes/create", SandboxCreate(sandbox_id=id))

    def _abandon(self, shim: Shim, bundle: Bundle) -> None:
        try:
            self._shims.abandon(shim, bundle, answers=False)
        except (OrlopError, OSError) as error:
            _log.warning("sandbox=%s leftovers of a failed create: %s", bundle.id, error)

    def start(self, ctx: CallContext, namespace: str, id: str) -> wire.StartSandboxResponse:
        """Start it; what the shim says of it."""
        request = wire.StartSandboxRequest(sandbox_id=id)
        answer = self._ask(ctx, namespace, id, "StartSandbox", request, wire.StartSandboxResponse)
        self._publisher.publish(namespace, "/sandboxes/start", SandboxStart(sandbox_id=id))
        return answer

    def stop(self, ctx: CallContext, namespace: str, id: str, seconds: int) -> None:
        """Stop it, in so many seconds; fine for one that is not there."""
        request = wire.StopSandboxRequest(sandbox_id=id, timeout_secs=seconds)
        with suppress(NotFound):
            self._ask(ctx, namespace, id, "StopSandbox", request, wire.StopSandboxResponse)

    def wait(self, ctx: CallContext, namespace: str, id: str) -> wire.WaitSandboxResponse:
        """Wait until it has stopped; that is announced then."""
        request = wire.WaitSandboxRequest(sandbox_id=id)
        ended = self._ask(ctx, namespace, id, "WaitSandbox", request, wire.WaitSandboxResponse)
        exited = SandboxExit(
            sandbox_id=id, exit_status=ended.exit_status, exited_at=ended.exited_at
        )
        self._publisher.publish(namespace, "/sandboxes/exit", exited)
        return ended

    def status(
        self, ctx: CallContext, namespace: str, id: str, *, verbose: bool
    ) -> wire.SandboxStatusResponse:
        """What its shim says; empty for one that is not there."""
        request = wire.SandboxStatusRequest(sandbox_id=id, verbose=verbose)
        try:
            return self._ask(
                ctx, namespace, id, "SandboxStatus", request, wire.SandboxStatusResponse
            )
        except NotFound:
            return wire.SandboxStatusResponse()

    def metrics(self, ctx: CallContext, namespace: str, id: str) -> wire.SandboxMetricsResponse:
        request = wire.SandboxMetricsRequest(sandbox_id=id)
        return self._ask(ctx, namespace, id, "SandboxMetrics", request, wire.SandboxMetricsResponse)

    def shutdown(self, ctx: CallContext, namespace: str, id: str) -> None:
        """End it, and its shim once no container is left; fine for one that is not there."""
        try:
            found = self.get(namespace, id)
        except NotFound:
            return
        request = wire.ShutdownSandboxRequest(sandbox_id=id)
        with suppress(NotFound):
            found.shim.ask(
                _SERVICE, "ShutdownSandbox", request, wire.ShutdownSandboxResponse, ctx=ctx
            )
        if self._take(found):
            self._shims.release(found.shim)
            self._remove(found)

    def _ask(
        self,
        ctx: CallContext,
        namespace: str,
        id: str,
        method: str,
        request: Message,
        answer: type[Answer],
    ) -> Answer:
        return self.get(namespace, id).shim.ask(_SERVICE, method, request, answer, ctx=ctx)

    # Shims that died, daemons that were

    def _shim_died(self, shim: Shim) -> None:
        """On the thread of a connection, which must not wait."""
        with suppress(RuntimeError):  # this daemon is ending itself
            self._undertaker.submit(self._bury, shim)

    def _bury(self, shim: Shim) -> None:
        with self._lock:
            found = [each for each in self._running.values() if each.shim is shim]
        for each in found:
            if not self._take(each):
                continue
            _log.warning("namespace=%s sandbox=%s shim has died", shim.namespace, each.bundle.id)
            self._shims.forget(shim)
            try:
                self._shims.clean_up(each.bundle)
            except (OrlopError, OSError) as error:
                _log.warning("sandbox=%s after its shim: %s", each.bundle.id, error)
            self._remove(each)

    def _take(self, sandbox: RunningSandbox) -> bool:
        """Whether the caller is the one to end a sandbox."""
        bundle = sandbox.bundle
        with self._lock:
            return self._running.pop((bundle.namespace, bundle.id), None) is sandbox

    def _remove(self, sandbox: RunningSandbox) -> None:
        sandbox.log.close()
        try:
            sandbox.bundle.delete()
        except OSError as error:
            _log.warning("sandbox=%s bundle stays: %s", sandbox.bundle.id, error)

    def recover(self) -> None:
        """Adopt the sandboxes of an earlier daemon, before its tasks; clear up after the others."""
        for bundle in self._bundles.all():
            try:
                self._adopt(bundle)
            except (OrlopError, OSError) as error:
                _log.info("namespace=%s sandbox=%s is gone: %s", bundle.namespace, bundle.id, error)
                try:
                    self._shims.clean_up(bundle)
                    bundle.delete()
                except (OrlopError, OSError) as failure:
                    _log.warning("sandbox=%s bundle stays: %s", bundle.id, failure)

    def _adopt(self, bundle: Bundle) -> None:
        log = ShimLog(bundle.path / "log", self._reactor, bundle.id, bundle.namespace)
        try:
            shim = self._shims.connect(bundle)
            try:
                request = wire.PingRequest(sandbox_id=bundle.id)
                shim.ask(
                    _SERVICE, "PingSandbox", request, wire.PingResponse, timeout=_QUERY_TIMEOUT
                )
            except NotFound:
                self._shims.release(shim)  # it was never made
                raise
        except BaseException:
            log.close()
            raise
        with self._lock:
            self._running[bundle.namespace, bundle.id] = RunningSandbox(bundle, shim, log)
