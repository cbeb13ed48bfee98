"""Watches over labelled containers: at once when one ends, and all of them every interval.

An exit is answered after a delay that grows from 0.1 s to a minute while the container does not
stay up; the rounds find what no event tells: labels that changed, exits while no daemon was there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from google.protobuf.field_mask_pb2 import FieldMask
from msgspec.structs import replace

from orlop.containers import Container, ContainerStore
from orlop.errors import NotFound, OrlopError, Unavailable
from orlop.events import Exchange, Listener, decoded
from orlop.namespaces.store import NamespaceStore
from orlop.restart.agenda import Agenda, Key
from orlop.restart.reviver import Reviver
from orlop.restart.rules import (
    ALWAYS,
    COUNT,
    EXPLICITLY_STOPPED,
    POLICY,
    STATUS,
    Rules,
    explicitly_stopped,
    parse,
)
from orlop.runtime.model import ProcessState
from orlop.runtime.task import Task
from orlop.tally import Counter
from orlop.wire.events_pb2 import ContainerDelete, TaskExit
from orlop.wire.task_types_pb2 import CREATED, PAUSED, PAUSING, RUNNING
from orlop.wire.types_pb2 import Envelope

_LABELLED = [f'labels."{STATUS}"']
_ALWAYS = [f'labels."{POLICY}"=={ALWAYS},labels."{EXPLICITLY_STOPPED}"==true']
_TOPICS = ("/tasks/exit", "/containers/delete")
_HANDS = 4
# A container without a task may be one that a client is just making.
_GRACE = 10 * 10**9
_FAILED = 255
_log = logging.getLogger(__name__)


class Monitor:
    """Starts containers again. Made before shims are recovered, so that no exit is missed."""

    def __init__(
        self,
        exchange: Exchange,
        namespaces: NamespaceStore,
        containers: ContainerStore,
        reviver: Reviver,
        interval: float,
    ) -> None:
        self._namespaces = namespaces
        self._containers = containers
        self._reviver = reviver
        self._interval = interval
        self._agenda = Agenda()
        self._lock = threading.Lock()
        self._busy: set[Key] = set()
        self._unstarted: dict[Key, int] = {}  # pids of created tasks that the last round saw
        self._failed: set[Key] = set()
        self._complaints: dict[Key, str] = {}
        self.looks = Counter("reason")
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="restart")
        # The next round sees what is missed.
        self._listener = Listener(exchange, "restart", _TOPICS, self._hear)
        self._thread = threading.Thread(target=self._run, name="restart", daemon=True)

    def start(self) -> None:
        self._listener.start()
        self._thread.start()

    def stop(self) -> None:
        """The daemon is ending: no container is started from now on. Waits for nothing."""
        self._agenda.close()

    def close(self) -> None:
        self.stop()
        self._reviver.close()
        self._listener.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._hands.shutdown(wait=True, cancel_futures=True)

    def _hear(self, envelope: Envelope) -> None:
        namespace = envelope.namespace
        if envelope.topic == "/containers/delete":
            if deleted := decoded(envelope, ContainerDelete):
                self._forget((namespace, deleted.id))
            return
        exited = decoded(envelope, TaskExit)
        if exited is None or exited.id != exited.container_id:
            return
        key = (namespace, exited.container_id)
        try:
            container = self._containers.get(*key)
        except NotFound:
            return
        except OrlopError:
            self._agenda.later(key)  # the database cannot be read just now
            return
        if container.labels.get(STATUS) == "running":
            # Without restarts it is one that somebody has started, whatever was before.
            self._agenda.ended(key, afresh=container.labels.get(COUNT, "0") == "0")

    def _forget(self, key: Key) -> None:
        self._agenda.forget(key)
        with self._lock:
            self._failed.discard(key)
            self._unstarted.pop(key, None)
            self._complaints.pop(key, None)

    def _bring_back(self) -> None:
        """Who is to run always is stopped until the daemon's next start only, as with Docker."""
        for namespace, container in self._found(_ALWAYS):
            if container.labels.get(STATUS):
                continue  # another client's, which says otherwise what it wants
            key = (namespace, container.id)
            try:
                self._want(namespace, container)
            except OrlopError as error:
                _log.warning("namespace=%s container=%s is not started again: %s", *key, error)
            else:
                self._agenda.later(key)

    def _want(self, namespace: str, container: Container) -> None:
        started = {STATUS: "running", EXPLICITLY_STOPPED: "false", COUNT: ""}
        mask = FieldMask(paths=[f"labels.{each}" for each in started])
        changed = replace(container, labels={**container.labels, **started})
        self._containers.update(namespace, changed, mask)

    def _run(self) -> None:
        self._bring_back()
        next_round = time.monotonic()
        while not self._agenda.closed:
            for key in self._agenda.take(next_round):
                self._submit(key, on_round=False)
            if time.monotonic() >= next_round and not self._agenda.closed:
                next_round = time.monotonic() + self._interval
                for key in self._labelled():
                    if not self._agenda.waits(key):
                        self._submit(key, on_round=True)

    def _labelled(self) -> list[Key]:
        return [(namespace, container.id) for namespace, container in self._found(_LABELLED)]

    def _found(self, filters: Sequence[str]) -> list[tuple[str, Container]]:
        try:
            return [
                (namespace.name, container)
                for namespace in self._namespaces.list()
                for container in self._containers.list(namespace.name, filters)
            ]
        except OrlopError as error:  # there will be another round
            _log.warning("containers are not looked at: %s", error)
            return []

    def _submit(self, key: Key, *, on_round: bool) -> None:
        with self._lock:
            busy = key in self._busy
            self._busy.add(key)
        if busy:
            if not on_round:
                self._agenda.later(key)  # whoever is at it may have looked before that
            return
        with suppress(RuntimeError):  # there is no thread just now: who comes next has it begun
            self._hands.submit(self._look_at, key, on_round)

    def _look_at(self, key: Key, on_round: bool) -> None:
        namespace, name = key
        try:
            self._tend(key, on_round)
        except (OrlopError, OSError, ValueError) as error:
            if self._is_gone(key):
                self._forget(key)
                return
            if not self._agenda.closed:  # or it is left to the next daemon
                self._complain(key, str(error))
        except Exception:  # noqa: BLE001 - one container's fault must not cost the others their hand
            _log.exception("namespace=%s container=%s restart", namespace, name)
        finally:
            with self._lock:
                self._busy.discard(key)
            self.looks.add("round" if on_round else "exit")

    def _is_gone(self, key: Key) -> bool:
        try:
            self._containers.get(*key)
        except NotFound:
            return True
        except OrlopError:
            pass  # it cannot be told
        return False

    def _complain(self, key: Key, what: str) -> None:
        """Once, not every round."""
        with self._lock:
            known = self._complaints.get(key) == what
            self._complaints[key] = what
        if not known:
            _log.warning("namespace=%s container=%s is not started again: %s", *key, what)

    def _tend(self, key: Key, on_round: bool) -> None:
        namespace, name = key
        container = self._containers.get(namespace, name)
        rules = parse(container.labels)
        if rules is None:
            return
        task = self._reviver.task(namespace, name)
        try:
            state = self._reviver.state(task)
        except Unavailable:  # its shim is just being buried
            if rules.wanted:
                self._agenda.later(key)
            raise
        if not rules.wanted:
            if on_round and state is not None and state.exit is None:
                _log.info("namespace=%s container=%s is to be stopped", namespace, name)
                self._reviver.end(namespace, name)
            return
        if self._is_fine(key, container, state, on_round):
            return
        if rules.again(self._status(key, state)):
            self._revive(key, container, rules, task)

    def _is_fine(
        self, key: Key, container: Container, state: ProcessState | None, on_round: bool
    ) -> bool:
        """Whether it runs, or somebody is about to make it run."""
        if state is None:
            return on_round and time.time_ns() - container.updated_at < _GRACE
        if state.status == CREATED:
            # A client is about to start it, unless it was so in the last round already.
            with self._lock:
                before = self._unstarted.get(key)
                self._unstarted[key] = state.pid
            return not on_round or before != state.pid
        fine = state.status in (RUNNING, PAUSED, PAUSING)
        if fine:
            self._agenda.runs(key)
        return fine

    def _status(self, key: Key, state: ProcessState | None) -> int:
        if state is not None and state.exit is not None:
            return state.exit.status
        return _FAILED if key in self._failed else 0

    def _revive(self, key: Key, container: Container, rules: Rules, before: Task | None) -> None:
        """A fresh task in the place of `before`, unless somebody else has made one."""
        namespace, name = key
        now = self._reviver.task(namespace, name)
        if self._agenda.closed or (now is not None and now is not before):
            return
        count = str(rules.count + 1)
        self._note(namespace, container, count)
        self._agenda.starts(key)  # it may have ended before its start is known here
        try:
            pid = self._reviver.revive(namespace, container, rules)
        except (OrlopError, OSError):
            if self._is_gone(key):  # nobody else would ask for what may have started
                self._reviver.take_back(namespace, name)
            elif self._agenda.closed:  # this daemon's end is no try of the container's
                self._note(namespace, container, container.labels.get(COUNT, ""))
            else:
                with self._lock:
                    self._failed.add(key)
                self._agenda.failed(key)
            raise
        with self._lock:
            self._failed.discard(key)
            self._complaints.pop(key, None)
        _log.info(
            "namespace=%s container=%s started again, pid=%d, restart %s",
            namespace,
            name,
            pid,
            count,
        )
        if not self._still_wanted(key, container):
            self._reviver.take_back(namespace, name)

    def _note(self, namespace: str, container: Container, count: str) -> None:
        """Have a container's record say how often it was started again."""
        self._containers.update(
            namespace,
            replace(container, labels={**container.labels, COUNT: count}),
            FieldMask(paths=[f"labels.{COUNT}"]),
        )

    def _still_wanted(self, key: Key, container: Container) -> bool:
        """Whether nobody removed the container, or stopped it, while it was being started."""
        try:
            now = self._containers.get(*key)
        except NotFound:
            return False
        rules = parse(now.labels)
        wanted = rules.wanted if rules is not None else not explicitly_stopped(now.labels)
        return wanted and now.created_at == container.created_at
