"""The nouns of this room."""

from __future__ import annotations

from dataclasses import dataclass
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


class ContainerLookup(Protocol):
    """Finds container records; `get` raises NotFound."""

    def get(self, namespace: str, id: str) -> ContainerRecord: ...


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
