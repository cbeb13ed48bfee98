"""The `[tracing]` section of the configuration, understood, with OpenTelemetry's variables."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orlop import tracing
from orlop.daemon import listening
from orlop.daemon.config import OTLP, ConfigError, Tracing
from orlop.errors import FailedPrecondition
from orlop.tally import Counter

# Who sends no traces pays nothing for them.
if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler

_log = logging.getLogger(__name__)

_KEYS = "configuration: tracing"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_INSECURE = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")
_PATH = "/v1/traces"


def check(wanted: Tracing) -> None:
    """Raises ConfigError when traces are wanted and the section makes no sense or is not safe.

    Spans name images, containers and hosts: beyond this machine they go in the clear only where
    that is asked for, whoever names the endpoint.
    """
    if _disabled() or not (endpoint := _endpoint(wanted)):
        return
    if (found := _protocol(wanted)) not in OTLP:
        raise ConfigError(
            f'{_KEYS}: the environment asks for protocol "{found}", of '
            f"{' and '.join(OTLP)} are known"
        )
    where = _KEYS + (".endpoint" if wanted.endpoint else " (by the environment)")
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f'{where} "{_public(endpoint)}": {error}') from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            f'{where} must be http://HOST:PORT or https://HOST:PORT, not "{_public(endpoint)}"'
        )
    if parts.scheme == "http" and not _may_be_read(wanted) and not _is_here(host):
        raise ConfigError(
            f'{where} "{_public(endpoint)}": spans would go over the network in the clear; '
            "use https://, or set tracing.insecure = true"
        )


def _may_be_read(wanted: Tracing) -> bool:
    """Whether who names the endpoint wants spans in the clear."""
    if wanted.insecure or wanted.endpoint:
        return wanted.insecure
    return _variable(_INSECURE).lower() == "true"


def _public(endpoint: str) -> str:
    """An endpoint as it may be told: without a user and a password, whatever else it is."""
    scheme, slashes, rest = endpoint.rpartition("://")
    return scheme + slashes + rest.rpartition("@")[2]


def _is_here(host: str) -> bool:
    try:
        return listening.is_loopback(host)
    except ConfigError:
        return False  # a name


def start(wanted: Tracing, closing: ExitStack) -> Counter:
    """Send spans from now on, if they are wanted; `closing` ends it. How many, by what came of it.

    Raises FailedPrecondition where OpenTelemetry is not installed or cannot be set up.
    """
    outcomes = Counter("outcome")
    endpoint = _endpoint(wanted)
    if not endpoint or _disabled():
        return outcomes
    try:
        from orlop.tracing.sdk import SdkTracer  # noqa: PLC0415 - see above

        tracer = SdkTracer(_exporter(wanted), _public(endpoint), outcomes, _sampler(wanted))
    except ImportError as error:
        raise FailedPrecondition(
            f"traces are sent by OpenTelemetry, which is not installed ({error}): "
            "pip install 'orlop[tracing]'"
        ) from error
    except (ValueError, OSError) as error:
        raise FailedPrecondition(
            f'traces cannot be sent to "{_public(endpoint)}": {error}'
        ) from error
    closing.callback(tracer.close)
    tracing.install(tracer)
    closing.callback(tracing.install, None)
    _log.info('sending traces to "%s" by %s', _public(endpoint), _protocol(wanted))
    return outcomes


def _disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _endpoint(wanted: Tracing) -> str:
    return wanted.endpoint or _variable(_ENDPOINTS)


def _protocol(wanted: Tracing) -> str:
    return wanted.protocol or _variable(_PROTOCOLS) or OTLP[0]


def _variable(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def _exporter(wanted: Tracing) -> SpanExporter:
    """Headers, certificates, compression and time limits are OpenTelemetry's variables."""
    if _protocol(wanted) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        # The scheme alone decides: OTEL_EXPORTER_OTLP_INSECURE would have https:// mean nothing.
        clear = urlsplit(_endpoint(wanted)).scheme == "http"
        return GrpcExporter(wanted.endpoint or None, insecure=clear)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as HttpExporter,
    )

    endpoint = wanted.endpoint
    if endpoint and urlsplit(endpoint).path in ("", "/"):
        endpoint = endpoint.rstrip("/") + _PATH
    return HttpExporter(endpoint or None)


def _sampler(wanted: Tracing) -> Sampler | None:
    """None leaves it to OTEL_TRACES_SAMPLER, which is everything if it is not set."""
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

    return None if wanted.sampling_ratio == 1 else ParentBasedTraceIdRatio(wanted.sampling_ratio)
