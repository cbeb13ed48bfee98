"""The nouns of this room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from google.protobuf.any_pb2 import Any

from orlop.wire.task_types_pb2 import Status


class ContainerRecord(Protocol):
    """What a task needs of its container's record."""

    @property
    def runtime(self) -> str: ...
    @property
    def runtime_options(self) -> Any | None: ...
    @property
    def spec(self) -> Any | None: ...
    @property
    def sandbox(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class ContainerLookup(Protocol):
    """Finds container records; `get` raises NotFound."""

    def get(self, namespace: str, id: str) -> ContainerRecord: ...


class NetworkPlan(Protocol):
    """What a task needs done for its network, whose `spec` takes the place of the record's."""

    @property
    def spec(self) -> bytes: ...

    def write(self, bundle: Path) -> None:
        """Put what the spec names into the bundle."""

    def connect(self, pid: int) -> None:
        """The task has its process, which has not begun."""

    def restored(self, pid: int) -> None:
        """The task goes on where its checkpoint was made, in an empty network namespace."""

    def abandon(self) -> None:
        """There will be no such task."""


PidOf = Callable[[str, str], int]
"""From a namespace and a container to its process, 0 if it does not run."""


class NetworkPlanner(Protocol):
    """Makes the plans of those containers that want one."""

    def plan(
        self, namespace: str, container: ContainerRecord, spec: bytes, bundle: Path, pid_of: PidOf
    ) -> NetworkPlan | None: ...

    def connects(self, namespace: str, container: str) -> bool:
        """Whether it sees to the network namespace of a container that runs."""

    def release(self, namespace: str, container: str) -> None:
        """A container's task is gone; never raises."""


class Exit(NamedTuple):
    """How a process ended: its status (128 + signal if killed), UTC nanoseconds, and its pid."""

    status: int
    at: int
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Stdio:
    """A process's streams: fifo paths or URIs, "" for none; a terminal has no stderr."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A process as its shim tells it. `exit` is None while it has not ended."""

    id: str
    pid: int
    status: Status
    stdio: Stdio
    exit: Exit | None


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process in a container; `info` names the exec that it belongs to, where it is one."""

    pid: int
    info: Any | None


@dataclass(frozen=True, slots=True)
class Metric:
    """A task's statistics: an Any of the cgroup version's message, at UTC nanoseconds."""

    id: str
    at: int
    data: Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a shim listens: the Task API's version, a `unix://` address, `ttrpc` or `grpc`."""

    version: int
    address: str
    protocol: str = "ttrpc"
