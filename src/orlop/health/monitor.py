"""Decides when containers are checked, and keeps what is found.

A container is checked while its task runs and is not paused; the pause between two checks counts
from the end of the first. A change of status is published as `/orlop/health`, with a message that
every client of containerd knows.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from orlop.containers import Container, ContainerStore
from orlop.errors import InvalidArgument, NotFound, OrlopError
from orlop.events import Exchange, Listener
from orlop.health.files import Key, StateFiles
from orlop.health.probe import PREFIX, Interrupted, Prober
from orlop.health.state import Health
from orlop.health.timetable import Timetable
from orlop.namespaces.store import NamespaceStore
from orlop.oci.healthcheck import LABEL, SECOND, Healthcheck
from orlop.runtime import TaskManager
from orlop.wire import events_pb2 as events
from orlop.wire.task_types_pb2 import PAUSED, PAUSING, RUNNING
from orlop.wire.types_pb2 import Envelope

TOPIC = "/orlop/health"
_LABELLED = [f'labels."{LABEL}"']
_STARTED, _EXITED, _DELETED = "/tasks/start", "/tasks/exit", "/tasks/delete"
_PAUSED, _RESUMED = "/tasks/paused", "/tasks/resumed"
_REMOVED, _CHANGED = "/containers/delete", "/containers/update"
_TOPICS = (_STARTED, _EXITED, _DELETED, _PAUSED, _RESUMED, _REMOVED, _CHANGED)
_HANDS = 64
_AGAIN = 5.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Patient:
    """A container that is watched, for as long as one task of it runs."""

    check: Healthcheck
    health: Health
    paused: bool = False
    busy: bool = False


class Monitor:
    """Made before shims are recovered, so that no exit is missed; `start` looks at what runs."""

    def __init__(
        self,
        exchange: Exchange,
        namespaces: NamespaceStore,
        containers: ContainerStore,
        tasks: TaskManager,
        prober: Prober,
        files: StateFiles,
    ) -> None:
        self._exchange = exchange
        self._namespaces = namespaces
        self._containers = containers
        self._tasks = tasks
        self._prober = prober
        self._files = files
        self._timetable = Timetable()
        self._lock = threading.Lock()
        self._patients: dict[Key, _Patient] = {}
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="health")
        self._listener = Listener(exchange, "health", _TOPICS, self._hear, self._look_around)
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        self._listener.start(self._look_around)
        self._thread.start()

    def close(self) -> None:
        """What is being run is left to the next daemon."""
        self._timetable.close()
        self._prober.close()
        self._listener.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._hands.shutdown(wait=True, cancel_futures=True)

    def health(self, namespace: str, container: str) -> Health | None:
        """What is known of a container, None for one that is not checked."""
        found = self._containers.get(namespace, container)
        return self._files.load((namespace, found.id)) if LABEL in found.labels else None

    def all(self, namespace: str) -> list[tuple[str, Health]]:
        """What is known of every container that is checked."""
        found = self._containers.list(namespace, _LABELLED)
        pairs = ((each.id, self._files.load((namespace, each.id))) for each in found)
        return [(name, health) for name, health in pairs if health is not None]

    # What happens to containers

    def _hear(self, envelope: Envelope) -> None:
        try:
            self._take(envelope.namespace, envelope.topic, envelope.event.value)
        except NotFound:
            pass  # it is gone already, and an event tells of that, too
        except DecodeError as error:  # a shim may call anything an event
            _log.warning(
                "namespace=%s topic=%s health: %s", envelope.namespace, envelope.topic, error
            )

    def _take(self, namespace: str, topic: str, event: bytes) -> None:
        if topic == _STARTED:
            started = events.TaskStart.FromString(event)
            key = (namespace, started.container_id)
            self._admit(key, Health(started.pid, time.time_ns()))
        elif topic == _EXITED:
            exited = events.TaskExit.FromString(event)
            if exited.id == exited.container_id:
                self._dismiss((namespace, exited.id), exited.pid)
            elif exited.id.startswith(PREFIX) and not self._prober.heard(
                namespace, exited.id, exited.exit_status
            ):
                # Of a container that was paused meanwhile, or of an earlier daemon.
                self._hands.submit(self._prober.end, namespace, exited.container_id, exited.id)
        elif topic == _DELETED:
            deleted = events.TaskDelete.FromString(event)
            self._dismiss((namespace, deleted.container_id), deleted.pid)
        elif topic == _PAUSED:
            self._rest((namespace, events.TaskPaused.FromString(event).container_id))
        elif topic == _RESUMED:
            self._resume((namespace, events.TaskResumed.FromString(event).container_id))
        elif topic == _REMOVED:
            key = (namespace, events.ContainerDelete.FromString(event).id)
            self._dismiss(key)
            self._files.remove(key)
        elif topic == _CHANGED:
            changed = events.ContainerUpdate.FromString(event)
            self._update((namespace, changed.id), labelled=LABEL in changed.labels)

    def _look_around(self) -> None:
        """Take up what runs, and where the last daemon was; forget what is no more."""
        known = set()
        for namespace in self._namespaces.list():
            for container in self._containers.list(namespace.name, _LABELLED):
                key = (namespace.name, container.id)
                known.add(key)
                self._seek(key)
        for key in set(self._files.keys()) - known:
            self._files.remove(key)

    def _seek(self, key: Key) -> None:
        """Take a container up if it runs; later, if its shim cannot tell just now."""
        try:
            self._find(key)
        except NotFound:
            pass
        except InvalidArgument as error:  # until its label changes
            _log.warning("namespace=%s container=%s is not checked: %s", *key, error)
        except (OrlopError, OSError):
            self._timetable.put(key, _AGAIN)
        except Exception:  # noqa: BLE001 - one container's fault must not cost the others theirs
            _log.exception("namespace=%s container=%s is not checked", *key)

    def _find(self, key: Key) -> None:
        state = self._tasks.get(*key).state()
        if state.status not in (RUNNING, PAUSED, PAUSING):
            return
        with self._lock:
            patient = self._patients.get(key)
        if patient is not None and patient.health.pid == state.pid:
            return
        health = self._files.load(key)
        if health is None or health.pid != state.pid:
            health = Health(state.pid, time.time_ns())
        elif health.exec_id:
            # A check that the last daemon did not see to its end.
            self._hands.submit(self._prober.end, *key, health.exec_id)
            health = replace(health, exec_id="")
        self._admit(key, health)
        if state.status != RUNNING:
            self._rest(key)

    def _admit(self, key: Key, health: Health) -> None:
        """Watch a container from now on, if its label asks for it."""
        check = _check_of(self._containers.get(*key))
        if check is None:
            return
        with self._lock:
            known = self._patients.get(key)
            if known is not None and known.health.pid == health.pid:
                return
            self._patients[key] = _Patient(check, health)
            self._files.save(key, health)
        self._schedule(key, health, check)

    def _dismiss(self, key: Key, pid: int = 0) -> None:
        """Watch a container no longer; only its task of `pid`, if that is known.

        Events of one that was just deleted may come after those of the next one.
        """
        with self._lock:
            patient = self._patients.get(key)
            if patient is not None and pid != patient.health.pid and all((pid, patient.health.pid)):
                return
            self._patients.pop(key, None)
        self._timetable.drop(key)
        self._give_up(key, patient)

    def _rest(self, key: Key) -> None:
        with self._lock:
            patient = self._patients.get(key)
            if patient is not None:
                patient.paused = True
        self._timetable.drop(key)
        self._give_up(key, patient)

    def _give_up(self, key: Key, patient: _Patient | None) -> None:
        if patient is not None and patient.health.exec_id:
            self._prober.stop(key[0], patient.health.exec_id)

    def _resume(self, key: Key) -> None:
        with self._lock:
            patient = self._patients.get(key)
            if patient is None or not patient.paused:
                return
            patient.paused = False
        self._schedule(key, patient.health, patient.check)

    def _update(self, key: Key, *, labelled: bool) -> None:
        """Its label may have changed, come or gone."""
        with self._lock:
            if not labelled and key not in self._patients:
                return
        check = _check_of(self._containers.get(*key))
        with self._lock:
            patient = self._patients.get(key)
            if patient is not None and check == patient.check:
                return
            if patient is not None and check is not None:
                patient.check = check
        if patient is None and check is not None:
            self._find(key)
        elif patient is not None and check is None:
            self._dismiss(key)
            self._files.remove(key)

    # Checks

    def _run(self) -> None:
        while (key := self._timetable.take()) is not None:
            with self._lock:
                patient = self._patients.get(key)
                if patient is not None:
                    if patient.paused or patient.busy:
                        continue
                    patient.busy = True
            with suppress(RuntimeError):  # there is no thread just now: who comes next has it begun
                if patient is None:
                    self._hands.submit(self._seek, key)
                else:
                    self._hands.submit(self._look_at, key, patient)

    def _look_at(self, key: Key, patient: _Patient) -> None:
        try:
            self._check(key, patient)
        except (Interrupted, NotFound):
            pass
        except (OrlopError, OSError, ValueError) as error:
            _log.warning("namespace=%s container=%s health: %s", *key, error)
        except Exception:  # noqa: BLE001 - one container's fault must not cost the others their hand
            _log.exception("namespace=%s container=%s health", *key)
        with self._lock:
            patient.busy = False
            current = self._patients.get(key) is patient and not patient.paused
        if current:
            self._schedule(key, patient.health, patient.check)

    def _check(self, key: Key, patient: _Patient) -> None:
        container, check = self._containers.get(*key), patient.check
        before = patient.health.status
        result = self._prober.run(
            key[0], container, check, lambda exec_id: self._begin(key, patient, exec_id)
        )
        with self._lock:
            if self._patients.get(key) is not patient:
                return  # it has ended meanwhile
            patient.health = health = patient.health.after(result, check)
            self._files.save(key, health)
        if health.status != before:
            self._publish(key, container, health.status)

    def _begin(self, key: Key, patient: _Patient, exec_id: str) -> None:
        """Note what is being run: a daemon that comes after this one must end it."""
        with self._lock:
            if self._patients.get(key) is not patient or patient.paused:
                raise Interrupted
            patient.health = replace(patient.health, exec_id=exec_id)
            self._files.save(key, patient.health)

    def _schedule(self, key: Key, health: Health, check: Healthcheck) -> None:
        self._timetable.put(key, health.pause(check, time.time_ns()) / SECOND)

    def _publish(self, key: Key, container: Container, status: str) -> None:
        namespace, name = key
        _log.info("namespace=%s container=%s is %s", namespace, name, status)
        event = events.ContainerUpdate(
            id=name, image=container.image, labels={"orlop/health": status}
        )
        self._exchange.publish(namespace, TOPIC, event)


def _check_of(container: Container) -> Healthcheck | None:
    """What a container's label asks for; None for nothing. Raises InvalidArgument."""
    text = container.labels.get(LABEL, "")
    check = Healthcheck.of_label(text).defaulted() if text else None
    return check if check is not None and check.wanted else None
