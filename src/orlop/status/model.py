"""What the page is told; the names of fields are those of its JSON (docs/status-page.md).

Sizes are bytes, times Unix times in seconds.
"""

from __future__ import annotations

import msgspec


class Use(msgspec.Struct, frozen=True):
    """What a container used until `at`, and holds; `cpu` is in seconds, a limit of 0 is none."""

    at: float
    cpu: float
    memory: int
    memory_limit: int
    pids: int
    pids_limit: int
    read: int
    written: int
    received: int
    sent: int


class Container(msgspec.Struct, frozen=True):
    """`state` is created, running, paused, exited or unknown; `exit` counts for exited alone.

    `health` is "" without a healthcheck, `started` 0 where it is not known. `use` is None for one
    that has no processes, or could not be looked at.
    """

    namespace: str
    id: str
    name: str
    image: str
    state: str
    exit: int
    restarts: int
    health: str
    started: float
    use: Use | None


class Part(msgspec.Struct, frozen=True):
    """One object of a pull; `state` as `orlop pull` shows it."""

    digest: str
    state: str
    done: int
    total: int


class Pull(msgspec.Struct, frozen=True):
    """A pull by the daemon. `done` and `total` are of all parts that are known so far."""

    namespace: str
    name: str
    began: float
    state: str
    done: int
    total: int
    layers: list[Part]


class Write(msgspec.Struct, frozen=True):
    """A blob that somebody writes who is no pull of the daemon; a `total` of 0 is not known."""

    namespace: str
    ref: str
    done: int
    total: int


class Host(msgspec.Struct, frozen=True):
    """The machine, and the daemon's version."""

    name: str
    version: str
    cpus: int
    memory: int


class State(msgspec.Struct, frozen=True):
    """What changes from second to second; so many containers as are `lost` no worker looked at."""

    at: float
    host: Host
    containers: list[Container]
    lost: int
    pulls: list[Pull]
    writes: list[Write]


class Layer(msgspec.Struct, frozen=True):
    """`images` is how many names of images lead to it, in all namespaces."""

    size: int
    images: int


class Image(msgspec.Struct, frozen=True):
    """`size` is that of its layers and configs as they are stored, `unique` of what only it has.

    `layers` are digests, lowest first. An image some of whose content is not here is not `whole`.
    """

    namespace: str
    name: str
    digest: str
    created: float
    size: int
    unique: int
    whole: bool
    layers: list[str]


class Images(msgspec.Struct, frozen=True):
    """All images; `layers` has those of all, each once, and `size` what they take together."""

    images: list[Image]
    layers: dict[str, Layer]
    size: int


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to `subject`; `exec` is a process in it, `status` how that ended."""

    at: float
    namespace: str
    topic: str
    subject: str = ""
    exec: str = ""
    status: int | None = None


class Skipped(msgspec.Struct, frozen=True):
    """So many events came at once that these were left out."""

    skipped: int
