"""One client: it makes containers, does things to them, and checks that they are as expected."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import Connection, containers, creating, images
from orlop.client.stdio import Streams
from orlop.errors import DeadlineExceeded, NotFound, OrlopError, Unknown
from orlop.wire.services import containers_pb2, snapshots_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import CREATED, PAUSED, RUNNING, STOPPED
from tests.soak.ledger import BROKEN_PIPE, KILLED, LOST, Expected, Ledger

LOGGER = str(Path(__file__).with_name("logger.sh"))

_SNAPSHOTTER = "overlayfs"
_MOST = 3
_LIMIT = 30.0
_LOGGED = 0.3  # of all tasks
_PRINTED = 300_000
_COMMANDS: list[tuple[list[str], int | None]] = [
    (["sleep", "1000"], None),
    (["sleep", "1000"], None),
    (["sh", "-c", "exit 0"], 0),
    (["sh", "-c", "sleep 0.2; exit 23"], 23),
    (["sh", "-c", f"head -c {_PRINTED} /dev/zero; exit 7"], 7),
]


class Sailor(threading.Thread):
    """Client `number`; with `rough`, things are being killed and calls may fail."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        image: str,
        number: int,
        seed: int,
        until: float,
        ledger: Ledger,
        logs: Path,
        *,
        rough: bool,
    ) -> None:
        super().__init__(name=f"sailor-{number}")
        self._connect = connect
        self._image = image
        self._number = number
        self._random = random.Random(seed * 1000 + number)
        self._until = until
        self._least = 60
        self._ledger = ledger
        self._logs = logs
        self._rough = rough
        self._made: dict[str, Expected] = {}
        self._count = 0
        self._connection: Connection | None = None

    @property
    def _wire(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def run(self) -> None:
        try:
            # A slow machine has longer, so that something has been done.
            while time.monotonic() < self._until or self._has_hardly_begun():
                self._step()
                self._ledger.step()
            self._clear()
        except Exception as error:  # noqa: BLE001 - told by the main thread
            self._ledger.fault(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self._drop()

    def stop(self) -> None:
        """Do no more than clear up."""
        self._until, self._least = 0.0, 0

    def _has_hardly_begun(self) -> bool:
        return not self._rough and self._ledger.steps < self._least

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _step(self) -> None:
        actions = [self._exec, self._pause, self._kill, self._look, self._look, self._tell]
        act = self._random.choice(actions)
        name = self._random.choice([*self._made, ""]) if self._made else ""
        if not name and len(self._made) < _MOST:
            self._tried(self._new_name(), self._make)
        elif name:
            if not self._made[name].has_task:
                act = self._random.choice([self._again, self._remove])
            self._tried(name, act)

    def _new_name(self) -> str:
        self._count += 1
        return f"soak-{self._number}-{self._count}"

    def _tried(self, name: str, act: Callable[[str], None]) -> None:
        """Act; where things are killed, what fails is looked at anew instead."""
        try:
            act(name)
        except OrlopError as error:
            if not self._rough:
                self._ledger.fault(f"{act.__name__} {name}: {type(error).__name__}: {error}")
            self._recover(name)

    # What a client does

    def _make(self, name: str) -> None:
        command, code = self._random.choice(_COMMANDS)
        expected = self._made[name] = Expected(code, has_task=False)
        view = images.view(self._wire, images.get(self._wire, self._image))
        wanted = creating.Wanted(image=view, id=name, command=command)
        _, mounts = creating.create(self._wire, wanted)
        self._start(name, expected, mounts)

    def _start(self, name: str, expected: Expected, mounts: object) -> None:
        self._ledger.heal(name)
        expected.killed = expected.paused = False
        expected.has_task = True
        log = self._logs / name
        log.unlink(missing_ok=True)
        expected.log = log if self._random.random() < _LOGGED else None
        logger = f"binary://{LOGGER}?{log}" if expected.log else ""
        streams = Streams(stdout=logger, stderr=logger)
        containers.create_task(self._wire, name, mounts, streams)  # type: ignore[arg-type]
        self._wire.tasks.start(tasks_pb2.StartRequest(container_id=name), timeout=_LIMIT)

    def _again(self, name: str) -> None:
        answer = self._wire.snapshots.mounts(
            snapshots_pb2.MountsRequest(snapshotter=_SNAPSHOTTER, key=name)
        )
        self._start(name, self._made[name], list(answer.mounts))

    def _exec(self, name: str) -> None:
        expected = self._made[name]
        if expected.code is not None or expected.killed or expected.paused:
            return
        self._count += 1
        exec_id, code = f"e{self._count}", self._random.randrange(100)
        process = {"args": ["sh", "-c", f"exit {code}"], "cwd": "/", "env": ["PATH=/bin"],
                   "user": {"uid": 0, "gid": 0}}  # fmt: skip
        spec = AnyMessage(type_url=containers.PROCESS_TYPE, value=json.dumps(process).encode())
        tasks = self._wire.tasks
        tasks.exec(
            tasks_pb2.ExecProcessRequest(container_id=name, exec_id=exec_id, spec=spec),
            timeout=_LIMIT,
        )
        tasks.start(tasks_pb2.StartRequest(container_id=name, exec_id=exec_id), timeout=_LIMIT)
        request = tasks_pb2.WaitRequest(container_id=name, exec_id=exec_id)
        found = tasks.wait(request, timeout=_LIMIT).exit_status
        if found != code and not self._ledger.is_harmed(name):
            self._ledger.fault(f"exec in {name} ended with {found}, not {code}")
        tasks.delete_process(tasks_pb2.DeleteProcessRequest(container_id=name, exec_id=exec_id))

    def _pause(self, name: str) -> None:
        expected = self._made[name]
        if expected.code is not None or expected.killed:
            return
        if expected.paused:
            self._wire.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=name), timeout=_LIMIT)
        else:
            self._wire.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=name), timeout=_LIMIT)
        expected.paused = not expected.paused

    def _kill(self, name: str) -> None:
        expected = self._made[name]
        if expected.paused:
            self._pause(name)
        if not expected.killed and expected.code is None:
            expected.killed = True
            containers.send_signal(self._wire, name, 9, everything=True)
        found = containers.wait(self._wire, name, timeout=_LIMIT)
        self._check_code(name, found)
        deleted = containers.delete_task(self._wire, name)
        expected.has_task = False
        if deleted is not None:
            self._check_code(name, deleted)
            self._check_log(name)

    def _look(self, name: str) -> None:
        """The task is in exactly one of the states that it may be in."""
        end, process = time.monotonic() + _LIMIT, None
        while process is None:
            try:
                request = tasks_pb2.GetRequest(container_id=name)
                process = self._wire.tasks.get(request, timeout=_LIMIT).process
            except DeadlineExceeded:  # a shim has two seconds to tell, and the machine is busy
                if time.monotonic() > end:
                    raise
        expected = self._made[name]
        if process.status == STOPPED:
            if expected.code is None and not expected.killed and not self._ledger.is_harmed(name):
                self._ledger.fault(f"{name} has stopped by itself: {process.exit_status}")
            self._check_code(name, process.exit_status)
        elif process.status not in (RUNNING, PAUSED):
            self._ledger.fault(f"{name} is in state {process.status}")
        elif (process.status == PAUSED) != expected.paused and not self._rough:
            self._ledger.fault(f"{name} is in state {process.status}, paused={expected.paused}")

    def _tell(self, name: str) -> None:
        """Lists, statistics and pids: they answer."""
        self._wire.tasks.list(tasks_pb2.ListTasksRequest(), timeout=_LIMIT)
        request = tasks_pb2.MetricsRequest(filters=[f"id=={name}"])
        self._wire.tasks.metrics(request, timeout=_LIMIT)
        if self._made[name].code is None and not self._made[name].killed:
            self._wire.tasks.list_pids(tasks_pb2.ListPidsRequest(container_id=name), timeout=_LIMIT)

    def _remove(self, name: str) -> None:
        containers.remove(self._wire, containers.get(self._wire, name), force=False)
        del self._made[name]

    def _check_code(self, name: str, found: int) -> None:
        expected = self._made[name]
        allowed = {KILLED} if expected.code is None else {expected.code}
        if self._ledger.is_harmed(name):
            allowed |= {KILLED, LOST, BROKEN_PIPE}
        if found not in allowed:
            self._ledger.fault(f"{name} ended with {found}, not {sorted(allowed)}")

    def _check_log(self, name: str) -> None:
        """Its logger has got all that it printed, once the task is deleted."""
        expected = self._made[name]
        if expected.log is None or expected.code != 7 or self._ledger.is_harmed(name):
            return
        size = expected.log.stat().st_size
        if size != _PRINTED:
            self._ledger.fault(f"{name} printed {_PRINTED} bytes, its logger got {size}")

    # After something was killed

    def _recover(self, name: str) -> None:
        """Connect again, and see what there is of a container."""
        end = time.monotonic() + _LIMIT
        while True:
            self._drop()
            try:
                self._adopt(name)
            except OrlopError as error:
                if time.monotonic() > end:
                    self._ledger.fault(f"{name} cannot be looked at: {error}")
                    self._made.pop(name, None)
                    return
            else:
                return
            time.sleep(0.1)

    def _adopt(self, name: str) -> None:
        expected = self._made.get(name)
        if expected is None:
            return
        try:
            self._wire.containers.get(containers_pb2.GetContainerRequest(id=name))
        except NotFound:
            with suppress(NotFound):
                containers.remove_snapshot(self._wire, _SNAPSHOTTER, name)
            del self._made[name]
            return
        try:
            process = self._wire.tasks.get(
                tasks_pb2.GetRequest(container_id=name), timeout=_LIMIT
            ).process
        except NotFound:
            expected.has_task = False
            return
        expected.has_task = True
        if process.status == CREATED:  # the start was lost
            containers.delete_task(self._wire, name)
            expected.has_task = False
            return
        expected.paused = process.status == PAUSED
        if process.status == STOPPED:
            self._check_code(name, process.exit_status)

    def _clear(self) -> None:
        for name in list(self._made):
            end = time.monotonic() + _LIMIT
            while name in self._made:
                try:
                    self._end(name)
                except OrlopError as error:
                    if time.monotonic() > end:
                        self._ledger.fault(f"{name} cannot be removed: {error}")
                        break
                    self._drop()
                    time.sleep(0.1)

    def _end(self, name: str) -> None:
        with suppress(NotFound, Unknown):  # it is not paused
            self._wire.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=name))
        try:
            record = containers.get(self._wire, name)
        except NotFound:
            containers.remove_snapshot(self._wire, _SNAPSHOTTER, name)
        else:
            containers.remove(self._wire, record, force=True)
        self._made.pop(name, None)
