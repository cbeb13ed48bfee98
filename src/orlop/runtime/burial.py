"""Shims that died: what they have left is cleared up, and their tasks are told to have ended, once.

A connection that ends is no death yet: the shim is looked for again first.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from orlop.errors import OrlopError
from orlop.events import Publisher
from orlop.rpc.convert import timestamp
from orlop.rpc.reactor import Reactor
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Exit
from orlop.runtime.shim import Shim
from orlop.runtime.shims import Shims
from orlop.runtime.task import Task
from orlop.wire.events_pb2 import TaskDelete, TaskExit

_HANDS = 4
RETRY = 1.0
"""Seconds until a shim is looked for again that breaks off at once, or could not be looked for."""
_log = logging.getLogger(__name__)


class Register(Protocol):
    """Where tasks are known: `runtime.tasks.TaskManager`."""

    def of_shim(self, shim: Shim) -> list[Task]: ...
    def take(self, task: Task) -> bool: ...
    def remove(self, task: Task, ended: Exit) -> None: ...


class Undertaker:
    """Hears of connections that end. Usable from any thread; the owner calls `close`."""

    def __init__(
        self, shims: Shims, publisher: Publisher, reactor: Reactor, register: Register
    ) -> None:
        self._shims = shims
        self._publisher = publisher
        self._reactor = reactor
        self._register = register
        self._lock = threading.Lock()
        self._stranded: set[Task] = set()
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="undertaker")
        shims.on_death.append(self.shim_died)

    def close(self) -> None:
        """Finish what was begun; the next daemon sees to the rest."""
        self._hands.shutdown(wait=True)

    def shim_died(self, shim: Shim) -> None:
        """A connection has ended; may be told twice, on a thread that must not wait."""
        with suppress(RuntimeError):  # this daemon is ending itself
            self._hands.submit(self._bury_all, shim)

    def _bury_all(self, shim: Shim) -> None:
        for task in self._register.of_shim(shim):
            self._bury(task, shim)

    def _bury(self, task: Task, shim: Shim) -> None:
        try:
            if not self._reconnected(task, shim) and self._register.take(task):
                self._clear_up(task, shim)
        except Exception:  # noqa: BLE001 - one task's fault must not leave the others unburied
            _log.exception("namespace=%s task=%s after its shim", task.namespace, task.id)

    def _reconnected(self, task: Task, lost: Shim) -> bool:
        """Whether the shim listens, or that cannot be told just now."""
        try:
            shim = self._shims.connect(task.bundle)
        except (OrlopError, FileNotFoundError):
            return False
        except OSError as error:  # for want of descriptors or memory: says nothing of the shim
            self._postpone(task, lost, error)
            return True
        self._shims.forget(lost if task.reconnect(lost, shim) else shim)
        with self._lock:
            self._stranded.discard(task)
        if shim.closed.is_set():
            # One that is dying accepts for a moment. Nobody was told of this end.
            self._reactor.call_later(RETRY, lambda: self.shim_died(shim))
        return True

    def _postpone(self, task: Task, lost: Shim, error: OSError) -> None:
        with self._lock:
            known = task in self._stranded
            self._stranded.add(task)
        if not known:
            _log.warning("namespace=%s task=%s shim is lost: %s", task.namespace, task.id, error)

        def again() -> None:
            with suppress(RuntimeError):  # this daemon is ending itself
                self._hands.submit(self._bury, task, lost)

        self._reactor.call_later(RETRY, again)

    def _clear_up(self, task: Task, shim: Shim) -> None:
        _log.warning("namespace=%s task=%s shim has died", task.namespace, task.id)
        with self._lock:
            self._stranded.discard(task)
        try:
            ended = self._shims.clean_up(task.bundle)
        except (OrlopError, OSError) as error:
            _log.warning("namespace=%s task=%s after its shim: %s", task.namespace, task.id, error)
            ended = Exit(255, time.time_ns(), task.pid)
        self._shims.forget(task.shim)
        known = task.tell_exit(ended)
        if known is ended:
            self.publish_exit(task.bundle, ended, keep=task.recovered)
        try:
            self._register.remove(task, known)
        finally:  # who hears that it is deleted may make another of its name
            self.publish_delete(task.bundle, known, keep=task.recovered)

    def publish_exit(self, bundle: Bundle, ended: Exit, *, keep: bool) -> None:
        """Publish what a dead shim has not told: that its task has ended.

        With `keep`, subscribers who come soon hear of it, too.
        """
        exited = TaskExit(
            container_id=bundle.id,
            id=bundle.id,
            pid=ended.pid,
            exit_status=ended.status,
            exited_at=timestamp(ended.at),
        )
        self._publisher.publish(bundle.namespace, "/tasks/exit", exited, keep=keep)

    def publish_delete(self, bundle: Bundle, ended: Exit, *, keep: bool) -> None:
        """Publish what a dead shim cannot: that its task is gone. `keep` is as for its exit."""
        deleted = TaskDelete(
            container_id=bundle.id,
            pid=ended.pid,
            exit_status=ended.status,
            exited_at=timestamp(ended.at),
        )
        self._publisher.publish(bundle.namespace, "/tasks/delete", deleted, keep=keep)
