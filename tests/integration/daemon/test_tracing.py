"""Traces, as a collector is sent them."""

from __future__ import annotations

import re
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from orlop.errors import NotFound
from orlop.wire.services.containers_pb2 import ListContainersRequest, ListContainersResponse
from tests import daemon_fixture
from tests.collector_fixture import CLIENT, INTERNAL, SERVER, Collector, Seen, by_grpc, by_http
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.metrics_fixture import Scraped
from tests.patience import patient
from tests.registry_fixture import free_port

TASKS = "containerd.services.tasks.v1.Tasks"
TRANSFER = "containerd.services.transfer.v1.Transfer/Transfer"
SHIM = "containerd.task.v3.Task"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


@contextmanager
def traced(folder: Path, settings: str, more: str = "") -> Iterator[Orlopd]:
    daemon = Orlopd()
    config = folder / f"{daemon.namespace}.toml"
    config.write_text(f"[tracing]\n{settings}\n{more}")
    daemon.options += ["--config", str(config)]
    with contextmanager(daemon_fixture.serving_with)(daemon):
        yield daemon


def _endpoint(collector: Collector, more: str = "") -> str:
    return f'endpoint = "http://127.0.0.1:{collector.port}"\n{more}'


def _logged(daemon: Orlopd, text: str) -> list[dict[str, str]]:
    """The lines whose message has this in it."""
    lines = (shlex.split(line) for line in daemon.log.read_text().splitlines())
    found = [dict(part.partition("=")[::2] for part in line) for line in lines]
    return [fields for fields in found if text in fields.get("msg", "")]


def _list(daemon: Orlopd, *filters: str, **metadata: str) -> None:
    """A call by gRPC, as a client in Go makes it."""
    with grpc.insecure_channel(f"unix:{daemon.address}") as channel:
        call = channel.unary_unary(
            "/containerd.services.containers.v1.Containers/List",
            ListContainersRequest.SerializeToString,
            ListContainersResponse.FromString,
        )
        pairs = {"containerd-namespace": daemon.namespace, **metadata}
        call(ListContainersRequest(filters=filters), metadata=tuple(pairs.items()), timeout=20)


@pytest.mark.parametrize(("collecting", "protocol"), [(by_http, ""), (by_grpc, "grpc")])
def test_a_pull_and_a_run(
    tmp_path: Path,
    registry: str,
    collecting: Any,
    protocol: str,
) -> None:
    image = f"{registry}/test/busybox:latest"
    made: AbstractContextManager[Collector] = collecting()
    with (
        made as collector,
        traced(tmp_path, _endpoint(collector, f'protocol = "{protocol}"')) as daemon,
    ):
        daemon.orlop("pull", image)
        _check_pull(collector, image)
        daemon.ctr("run", "--rm", image, "brief", "/bin/true")
        _check_run(collector)
        host = registry.partition(":")[0]
        for request in collector.spans("HTTP GET"):
            assert request.attributes["server.address"] == host
            assert request.attributes["http.response.status_code"] == 200
        assert {each.service for each in collector.spans()} == {"orlopd"}


def _check_pull(collector: Collector, image: str) -> None:
    call = collector.await_span(TRANSFER)
    assert (call.kind, call.parent, call.failed) == (SERVER, "", False)
    assert call.attributes["rpc.system"] == "ttrpc"
    assert call.attributes["rpc.ttrpc.status_code"] == 0
    pull = collector.await_span("pull", orlop__image=image)
    assert collector.path(pull) == ["pull", TRANSFER]
    parts = collector.within(pull)
    assert {each.trace for each in parts} == {call.trace}
    assert collector.path(collector.await_span("resolve")) == ["resolve", "pull", TRANSFER]
    layers = [each for each in parts if each.name == "layer"]
    fetched = [each for each in parts if each.name == "fetch"]
    # Besides the layers there are an index or not, a manifest and a config.
    assert 2 <= len(fetched) - len(layers) <= 3
    assert len({each.attributes["orlop.digest"] for each in fetched}) == len(fetched)
    for layer in layers:
        inside = {each.name: each for each in collector.within(layer)}
        assert {"fetch", "unpack", "fork", "HTTP GET"} <= set(inside)
        assert inside["fork"].attributes["orlop.process"] == "orlop-unpack"
        for each in (*inside.values(), collector.await_span("commit")):
            assert each.attributes.get("orlop.digest", layer.attributes["orlop.digest"])
            assert call.begin <= each.begin <= each.end <= call.end
        assert inside["HTTP GET"].kind == CLIENT
        assert inside["unpack"].kind == INTERNAL
    commits = [each for each in parts if each.name == "commit"]
    assert len(commits) == len(layers) >= 1
    assert all(str(each.attributes["orlop.snapshot"]).startswith("sha256:") for each in commits)


def _check_run(collector: Collector) -> None:
    create = collector.await_span(f"{TASKS}/Create")
    inside = {each.name: each for each in collector.within(create)}
    assert inside["shim.start"].attributes["container.id"] == "brief"
    made = inside[f"{SHIM}/Create"]
    assert (made.kind, made.parent, made.attributes["rpc.system"]) == (CLIENT, create.id, "ttrpc")
    runc = collector.await_span("runc create")
    assert (runc.parent, runc.attributes["container.id"]) == (made.id, "brief")
    assert runc.attributes["process.exit.code"] == 0
    assert made.begin < runc.begin < runc.end < made.end
    for method, served in (("Start", "Start"), ("Delete", "Delete"), ("Wait", "Wait")):
        call = collector.await_span(f"{TASKS}/{served}")
        assert call.attributes["rpc.grpc.status_code"] == 0
        names = [each.name for each in collector.within(call)]
        assert f"{SHIM}/{method}" in names
    # Nothing begins a trace but what a client asks for.
    roots = [each for each in collector.spans() if not each.parent]
    assert {each.kind for each in roots} == {SERVER}


def test_the_trace_of_a_client_goes_on_and_is_in_the_log(tmp_path: Path) -> None:
    with by_http() as collector, traced(tmp_path, _endpoint(collector)) as daemon:
        _list(daemon, "id~=/(/", traceparent=f"00-{TRACE}-{SPAN}-01")
        call = collector.await_span("containerd.services.containers.v1.Containers/List")
        assert (call.trace, call.parent) == (TRACE, SPAN)
        (line,) = _logged(daemon, "never matches")
        assert (line["trace_id"], line["span_id"]) == (TRACE, call.id)
        assert "trace_id" not in _logged(daemon, "sending traces")[0]
        # One that its client does not record is not recorded here, and what is no trace is none.
        _list(daemon, traceparent=f"00-{TRACE}-{SPAN}-00")
        _list(daemon, traceparent="00-nonsense")
        _list(daemon, "id==x", traceparent=f"00-{'0' * 32}-{SPAN}-01")
        other = [each for each in _await_lists(collector, 3) if each is not call]
        assert all(each.trace != TRACE and not each.parent for each in other)


def _await_lists(collector: Collector, count: int) -> list[Seen]:
    name = "containerd.services.containers.v1.Containers/List"
    Orlopd.wait_for(lambda: len(collector.spans(name)) >= count, 20)
    found = collector.spans(name)
    assert len(found) == count
    return found


def test_who_is_to_blame(tmp_path: Path, busybox_archive: Path) -> None:
    """Asking for what is not there is no failure of the server, but one of what it does for it."""
    with by_http() as collector, traced(tmp_path, _endpoint(collector)) as daemon:
        daemon.ctr("task", "start", "nobody", check=False)
        missing = collector.await_span("containerd.services.containers.v1.Containers/Get")
        assert missing.attributes["rpc.grpc.status_code"] == NotFound.code
        assert not missing.failed
        done = daemon.orlop("pull", f"127.0.0.1:{free_port()}/none", check=False)
        assert done.returncode
        pull = collector.await_span("pull")
        assert pull.failed
        assert pull.attributes["error.type"] == "Silent"  # a registry that does not answer
        assert collector.await_span(TRANSFER).failed
        daemon.ctr("images", "import", str(busybox_archive))
        assert daemon.ctr("run", "--rm", BUSYBOX, "bad", "/none", check=False).returncode
        runc, shim = collector.await_span("runc create"), collector.await_span(f"{SHIM}/Create")
        assert runc.failed
        assert runc.attributes["process.exit.code"] == 1
        assert shim.failed
        assert runc.parent == shim.id


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with by_grpc() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "node-7")
        with traced(tmp_path, "") as daemon:
            daemon.ctr("version")
            found = collector.await_span("containerd.services.version.v1.Version/Version")
            assert found.service == "node-7"
        seen = len(collector.spans())
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        with traced(tmp_path, "") as daemon:
            daemon.ctr("version")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        with traced(tmp_path, "sampling_ratio = 0") as daemon:
            daemon.ctr("version")
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        with traced(tmp_path, _endpoint(collector)) as daemon:
            daemon.ctr("version")
            assert not _logged(daemon, "sending traces")
        assert len(collector.spans()) == seen


def test_what_is_left_at_the_end_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with by_http() as collector:
        with traced(tmp_path, _endpoint(collector)) as daemon:
            daemon.ctr("version")
        assert collector.spans("containerd.services.version.v1.Version/Version")


def test_a_collector_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line when it goes, one when it comes back, a count, and nobody waits."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    more = '[metrics]\naddress = "127.0.0.1:0"\n'
    with by_http() as collector:
        away = threading.Event()
        away.set()

        def refuse() -> None:
            if away.is_set():
                raise ConnectionAbortedError

        collector.trouble = refuse
        with traced(tmp_path, _endpoint(collector), more) as daemon:
            served = Scraped(daemon)

            def spans(outcome: str) -> float:
                return served.scrape().total("orlop_trace_spans_total", outcome=outcome)

            for _ in range(3):
                lost = spans("failed")
                began = time.monotonic()
                _list(daemon)
                assert time.monotonic() - began < patient(10)
                daemon.wait_for(lambda lost=lost: spans("failed") > lost, 20)  # type: ignore[misc]
            assert spans("exported") == 0
            (line,) = _logged(daemon, "takes no spans")
            assert str(collector.port) in line["msg"]
            assert not _logged(daemon, "takes spans again")
            away.clear()

            def arrived() -> bool:
                _list(daemon)  # again: what takes too long is lost
                return spans("exported") >= 1

            daemon.wait_for(arrived)
            daemon.wait_for(lambda: bool(_logged(daemon, "takes spans again")))
            assert not re.search("room=opentelemetry", daemon.log.read_text())


def test_a_collector_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has an end, what is beyond it is counted, and the daemon stops all the same."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")  # longer than the calls take together
    more = '[metrics]\naddress = "127.0.0.1:0"\n'
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        with traced(tmp_path, f'endpoint = "http://127.0.0.1:{port}"', more) as daemon:
            served = Scraped(daemon)
            for _ in range(40):
                _list(daemon)

            def dropped() -> float:
                return served.scrape().total("orlop_trace_spans_total", outcome="dropped")

            daemon.wait_for(lambda: dropped() >= 40 - 8 - 4)  # a call's span ends after its answer
            assert daemon.stop() < patient(15)


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    for settings, complaint in (
        ('endpoint = "collector:4317"', "must be http://HOST:PORT"),
        ('endpoint = "http://192.0.2.1:4318"', "tracing.insecure"),
        ('protocol = "http/json"', 'one of "", "http/protobuf", "grpc"'),
        ("sampling_ratio = 1.5", "from 0 to 1"),
    ):
        daemon = Orlopd()
        config = tmp_path / "config.toml"
        config.write_text(f"[tracing]\n{settings}\n")
        process = daemon.spawn([*daemon.command(), "--config", str(config)], daemon.log)
        try:
            assert process.wait(patient(20)) == 2
            assert complaint in daemon.log.read_text()
        finally:
            daemon.discard()
