from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import ExitStack

import pytest

from orlop.daemon import tracing
from orlop.daemon.config import ConfigError, Tracing
from orlop.errors import FailedPrecondition


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Tracing("127.0.0.1:4318"), "must be http"),
        (Tracing("http://"), "must be http"),
        (Tracing("ftp://127.0.0.1"), "must be http"),
        (Tracing("http://127.0.0.1:port"), "tracing.endpoint"),
        (Tracing("http://[::1"), "tracing.endpoint"),
        (Tracing("http://collector:4318"), "in the clear"),
        (Tracing("http://192.0.2.1:4318"), "in the clear"),
    ],
)
def test_what_makes_no_sense_or_is_not_safe(settings: Tracing, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        tracing.check(settings)


@pytest.mark.parametrize(
    "settings",
    [
        Tracing(),
        Tracing("http://localhost:4318"),
        Tracing("http://[::1]:4317", "grpc"),
        Tracing("http://collector:4318/other/path", insecure=True),
        Tracing("https://collector:4318"),
    ],
)
def test_what_is_fine(settings: Tracing) -> None:
    tracing.check(settings)


def test_a_protocol_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    tracing.check(Tracing())  # no traces are sent
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="http/json"):
        tracing.check(Tracing())
    tracing.check(Tracing(protocol="grpc"))
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    tracing.check(Tracing())


def test_an_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    with pytest.raises(ConfigError, match="in the clear"):
        tracing.check(Tracing())
    tracing.check(Tracing(insecure=True))
    tracing.check(Tracing("http://127.0.0.1:4318"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    tracing.check(Tracing())
    with pytest.raises(ConfigError, match="in the clear"):
        tracing.check(Tracing("http://collector:4318"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317")
    with pytest.raises(ConfigError, match="must be http"):
        tracing.check(Tracing())


def test_a_password_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError) as refused:
        tracing.check(Tracing("http://me:se/cret@collector:4318"))
    assert "cret" not in str(refused.value)
    caplog.set_level(logging.INFO)
    with ExitStack() as stack:
        tracing.start(Tracing("http://me:secret@127.0.0.1:1/there"), stack)
    assert 'sending traces to "http://127.0.0.1:1/there"' in caplog.text
    assert "secret" not in caplog.text


def test_a_queue_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    with ExitStack() as stack, pytest.raises(FailedPrecondition, match="many"):
        tracing.start(Tracing("http://127.0.0.1:1"), stack)
    assert logging.getLogger("opentelemetry").propagate


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orlop.tracing.sdk", None)
    with ExitStack() as stack, pytest.raises(FailedPrecondition, match=r"orlop\[tracing\]"):
        tracing.start(Tracing("http://127.0.0.1:1"), stack)


def test_who_sends_no_traces_loads_nothing_of_them() -> None:
    code = "import sys, orlop.daemon.main, orlop.daemon.assembly; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "orlop.tracing" in loaded
    assert not [name for name in loaded if name.startswith(("opentelemetry", "requests"))]
    assert "orlop.tracing.sdk" not in loaded
