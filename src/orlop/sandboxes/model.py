"""The noun of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox's record. Times are UTC nanoseconds since the epoch.

    The Any values are the client's own, kept byte for byte. `sandboxer` names the controller that
    runs it, "" for the namespace's own.
    """

    id: str
    runtime: str
    runtime_options: Any | None = None
    spec: Any | None = None
    sandboxer: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0
