"""Spans of calls, by OpenTelemetry's conventions: the same on both transports and both sides."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from orlop import errors, tracing
from orlop.tracing import Span

# A server's own failures; with the others it is the client who asked for what cannot be.
_OWN = frozenset(
    kind.code
    for kind in (
        errors.Unknown,
        errors.DeadlineExceeded,
        errors.Unimplemented,
        errors.Internal,
        errors.Unavailable,
        errors.DataLoss,
    )
)


def call_span(
    transport: str, service: str, method: str, kind: str, parent: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    attributes = {"rpc.system": transport, "rpc.service": service, "rpc.method": method}
    return tracing.span(f"{service}/{method}", attributes, kind=kind, parent=parent)


def note_failure(span: Span, transport: str, failure: errors.OrlopError | None) -> None:
    """Say how a served call ended."""
    code = failure.code if failure is not None else 0
    span.set({f"rpc.{transport}.status_code": code})
    if failure is not None and code in _OWN:
        span.fail(str(failure))
