"""The noun of this room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any

from orlop.errors import OrlopError
from orlop.oci.descriptor import Platform


@dataclass(frozen=True, slots=True)
class Plugin:
    """A part of the daemon, as clients see it.

    `requires` names plugin types. `error` is why the part does not work, None if it does. `info`
    answers a client's question about the part (`PluginInfo` with options), where it takes any.
    """

    type: str
    id: str
    requires: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    exports: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    error: OrlopError | None = None
    info: Callable[[Any], Any] | None = None
