"""Spans: what is done within what, and how long it takes, for whoever follows a request.

Rooms say what they do, by `span`; `carry` takes the present span along to another thread. They know
nothing of who listens: without a tracer, which `install` sets, a span is a comparison. `sdk` has
that of OpenTelemetry, for daemons that are told to send traces.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

INTERNAL, SERVER, CLIENT = "internal", "server", "client"
"""Kinds of spans: work of our own, a call that we serve, one that we make."""

Attributes = Mapping[str, str | int | float | bool]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Span(Protocol):
    """What is being done; it ends with the `with` block, and has failed where that raises."""

    def set(self, attributes: Attributes) -> None:
        """Say more of it."""

    def fail(self, message: str) -> None:
        """It has failed, though nothing is raised."""


class Ids(NamedTuple):
    """The present trace and span, in hexadecimal digits, and whether they are sent."""

    trace: str
    span: str
    recorded: bool


class Times(NamedTuple):
    """In nanoseconds since 1970."""

    began: int
    ended: int


class Tracer(Protocol):
    """Who takes spans; the present one is that of the context (`contextvars`)."""

    def span(
        self, name: str, kind: str, attributes: Attributes, parent: Mapping[str, str] | None
    ) -> AbstractContextManager[Span]: ...

    def record(
        self, name: str, attributes: Attributes, parent: Mapping[str, str], times: Times, error: str
    ) -> None: ...

    def ids(self) -> Ids | None: ...

    def headers(self) -> dict[str, str]: ...


class _Unseen:
    """A span that nobody asked for."""

    def set(self, attributes: Attributes) -> None:
        pass

    def fail(self, message: str) -> None:
        pass


UNSEEN: AbstractContextManager[Span] = nullcontext(_Unseen())
"""For spans that nobody takes."""
_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Give all spans of this process to `tracer`, from now on; None: to nobody."""
    global _tracer  # noqa: PLW0603 - as with logging, everybody would have to pass it on
    _tracer = tracer


def on() -> bool:
    """Whether anybody takes spans: else what is said of them need not be found out."""
    return _tracer is not None


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: str = INTERNAL,
    parent: Mapping[str, str] | None = None,
) -> AbstractContextManager[Span]:
    """A part of the present span; where there is none, what is done in the background, no span.

    `parent`, the headers of a request from outside, makes it the first of a trace, or goes on with
    the one that they name (`traceparent`, W3C Trace Context).
    """
    if _tracer is None:
        return UNSEEN
    return _tracer.span(name, kind, attributes or {}, parent)


def record(
    name: str,
    attributes: Attributes,
    *,
    parent: Mapping[str, str],
    times: Times,
    error: str = "",
) -> None:
    """Tell of a span that another process has seen; `parent` is what `headers` told that.

    `error` is why it has failed, "" if it has not.
    """
    if _tracer is not None:
        _tracer.record(name, attributes, parent, times, error)


def ids() -> Ids | None:
    """What logs and exemplars name; None where there is no span."""
    return None if _tracer is None else _tracer.ids()


def headers() -> dict[str, str]:
    """What tells a peer that is called of the present span."""
    return {} if _tracer is None else _tracer.headers()


def carry(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The same function as a part of the present span, for another thread to call once."""
    if _tracer is None:
        return function
    return partial(contextvars.copy_context().run, function)
