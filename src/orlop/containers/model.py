"""The noun of this room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from google.protobuf.any_pb2 import Any


class Container(msgspec.Struct, frozen=True):
    """A container's record. Times are UTC nanoseconds since the epoch.

    The Any values (`spec`, `runtime_options`, `extensions`) are the client's own, kept byte for
    byte; nobody changes them. `spec` holds the OCI runtime spec as JSON.
    """

    id: str
    runtime: str
    spec: Any | None
    image: str = ""
    runtime_options: Any | None = None
    snapshotter: str = ""
    snapshot_key: str = ""
    sandbox: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    extensions: Mapping[str, Any] = msgspec.field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0


class Facts(NamedTuple):
    """A few things of a container, for those who go through all of them often."""

    image: str
    runtime: str
    snapshotter: str
    snapshot_key: str
    labels: dict[str, str]
