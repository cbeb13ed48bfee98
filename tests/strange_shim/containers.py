"""Containers that are plain processes of the host, held back until they are started."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty

from orlop.errors import AlreadyExists, NotFound, Unknown
from orlop.rpc.convert import pack, timestamp
from orlop.wire import cgroups_v1_pb2 as metrics
from orlop.wire import events_pb2 as events
from orlop.wire import task_types_pb2 as types
from orlop.wire import task_v3_pb2 as task
from tests.strange_shim.events import Publisher
from tests.strange_shim.manners import Manners

_HOLD = 'read go && exec "$@" </dev/null'


@dataclass
class Process:
    """One process; `ended` is set with its status and time."""

    arguments: list[str]
    popen: subprocess.Popen[bytes] | None = None
    started: bool = False
    paused: bool = False
    status: int = 0
    at: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def hold(self, stdout: str) -> None:
        """Make the process, which waits for `go`."""
        output: Any = open(stdout, "wb") if stdout else subprocess.DEVNULL  # noqa: PTH123, SIM115
        self.popen = subprocess.Popen(
            ["sh", "-c", _HOLD, "sh", *self.arguments],
            stdin=subprocess.PIPE, stdout=output, start_new_session=True,
        )  # fmt: skip

    def go(self) -> None:
        assert self.popen is not None
        assert self.popen.stdin is not None
        self.started = True
        self.popen.stdin.write(b"go\n")
        self.popen.stdin.close()

    @property
    def pid(self) -> int:
        return self.popen.pid if self.popen else 0

    @property
    def state(self) -> types.Status:
        if self.ended.is_set():
            return types.STOPPED
        if self.paused:
            return types.PAUSED
        return types.RUNNING if self.started else types.CREATED


class Containers:
    """The Task service. `flood` of the manners happens at the start of a container."""

    def __init__(self, publisher: Publisher, manners: Path) -> None:
        self._publisher = publisher
        self._manners = manners
        self._processes: dict[tuple[str, str], Process] = {}

    @property
    def empty(self) -> bool:
        return not self._processes

    def _find(self, id: str, exec_id: str = "") -> Process:
        if (id, exec_id) not in self._processes:
            raise NotFound(f'process "{exec_id or id}"')
        return self._processes[id, exec_id]

    def create(self, request: Any) -> task.CreateTaskResponse:
        spec = json.loads(Path(request.bundle, "config.json").read_text())
        process = Process(spec["process"]["args"])
        if (request.id, "") in self._processes:
            raise AlreadyExists(f'container "{request.id}"')
        process.hold(request.stdout)
        Path(request.bundle, "init.pid").write_text(str(process.pid))
        self._processes[request.id, ""] = process
        self._watch(request.id, "", process)
        created = events.TaskCreate(container_id=request.id, pid=process.pid)
        self._publisher.publish("/tasks/create", created)
        return task.CreateTaskResponse(pid=process.pid)

    def _watch(self, id: str, exec_id: str, process: Process) -> None:
        def wait() -> None:
            assert process.popen is not None
            code = process.popen.wait()
            process.status, process.at = code if code >= 0 else 128 - code, time.time_ns()
            if process.started:
                self._publisher.publish(
                    "/tasks/exit",
                    events.TaskExit(
                        container_id=id, id=exec_id or id, pid=process.pid,
                        exit_status=process.status, exited_at=timestamp(process.at),
                    ),
                )  # fmt: skip
            process.ended.set()

        threading.Thread(target=wait, daemon=True).start()

    def start(self, request: Any) -> task.StartResponse:
        process = self._find(request.id, request.exec_id)
        if request.exec_id:
            process.hold("")
            self._watch(request.id, request.exec_id, process)
        process.go()
        if not request.exec_id:
            started = events.TaskStart(container_id=request.id, pid=process.pid)
            self._publisher.publish("/tasks/start", started)
            now = Manners.read(self._manners)
            if now.babbles:
                self._publisher.babble()
            if now.flood:
                threading.Thread(
                    target=self._publisher.flood, args=(request.id,), daemon=True
                ).start()
        return task.StartResponse(pid=process.pid)

    def exec(self, request: Any) -> Empty:
        spec = json.loads(request.spec.value)
        self._processes[request.id, request.exec_id] = Process(spec["args"])
        return Empty()

    def wait(self, request: Any) -> task.WaitResponse:
        process = self._find(request.id, request.exec_id)
        process.ended.wait()
        return task.WaitResponse(exit_status=process.status, exited_at=timestamp(process.at))

    def state(self, request: Any) -> task.StateResponse:
        process = self._find(request.id, request.exec_id)
        return task.StateResponse(
            id=request.id, pid=process.pid, status=process.state, exit_status=process.status,
            exited_at=timestamp(process.at),
        )  # fmt: skip

    def kill(self, request: Any) -> Empty:
        process = self._find(request.id, request.exec_id)
        if process.ended.is_set():
            raise NotFound("process already finished")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, request.signal)
        return Empty()

    def delete(self, request: Any) -> task.DeleteResponse:
        process = self._find(request.id, request.exec_id)
        if process.started and not process.ended.is_set():
            raise Unknown("cannot delete a running process")
        if process.popen is not None and not process.started:
            os.killpg(process.pid, 9)
        if process.popen is not None:
            process.ended.wait()
        own = [key for key in self._processes if key[0] == request.id]  # its execs go with it
        for key in [(request.id, request.exec_id)] if request.exec_id else own:
            del self._processes[key]
        if not request.exec_id:
            deleted = events.TaskDelete(
                container_id=request.id, pid=process.pid, exit_status=process.status,
                exited_at=timestamp(process.at),
            )  # fmt: skip
            self._publisher.publish("/tasks/delete", deleted)
        return task.DeleteResponse(
            pid=process.pid, exit_status=process.status, exited_at=timestamp(process.at)
        )

    def pids(self, request: Any) -> task.PidsResponse:
        return task.PidsResponse(processes=[types.ProcessInfo(pid=self._find(request.id).pid)])

    def pause(self, request: Any) -> Empty:
        self._find(request.id).paused = True
        return Empty()

    def resume(self, request: Any) -> Empty:
        self._find(request.id).paused = False
        return Empty()

    def update(self, request: Any) -> Empty:
        self._find(request.id)
        return Empty()

    def resize_pty(self, request: Any) -> Empty:
        self._find(request.id, request.exec_id)
        return Empty()

    def close_io(self, request: Any) -> Empty:
        self._find(request.id, request.exec_id)
        return Empty()

    def stats(self, request: Any) -> task.StatsResponse:
        self._find(request.id)
        return task.StatsResponse(stats=pack(metrics.Metrics(pids=metrics.PidsStat(current=1))))

    def connect(self, request: Any) -> task.ConnectResponse:
        return task.ConnectResponse(shim_pid=os.getpid())

    def shutdown(self, request: Any) -> Empty:
        return Empty()
