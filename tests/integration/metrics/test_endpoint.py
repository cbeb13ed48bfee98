from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.metrics_fixture import (
    OPENMETRICS,
    Metrics,
    Scraped,
    get,
    promtool,
    scraped,
)
from tests.patience import patient
from tests.registry_fixture import free_port, make_certificates

# containerd's own names, of which Prometheus has the opinion that it has of containerd.
_CONTAINERDS = re.compile(r"container_\w*(nanoseconds|microseconds) use base unit .*")


def test_paths_formats_and_compression(tmp_path: Path) -> None:
    with scraped(tmp_path) as served:
        plain = served.get()
        assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert Metrics(plain.body.decode()).one("orlop_metrics_containers") == 0
        assert served.get("/v1/metrics").status == 200
        assert served.get("/").status == 404
        assert get(served.port, method="POST").status == 405
        head = get(served.port, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        modern = served.get(headers=OPENMETRICS)
        assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
        assert modern.body.endswith(b"# EOF\n")
        Metrics(modern.body.decode(), openmetrics=True)
        small = served.get(headers={"Accept-Encoding": "gzip"})
        assert small.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(small.body).startswith(b"# HELP")


def test_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with scraped(tmp_path, f'token = "{token}"') as served:
        refused = served.get()
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert served.get(headers={"Authorization": "Bearer wrong"}).status == 401
        assert served.get(headers={"Authorization": "Basic first"}).status == 401
        assert served.get(headers={"Authorization": "Bearer first"}).status == 200
        token.write_text("second")
        assert served.get(headers={"Authorization": "Bearer first"}).status == 401
        assert served.get(headers={"Authorization": "bearer second"}).status == 200
        token.unlink()
        assert served.get(headers={"Authorization": "Bearer second"}).status == 503


def test_tls_with_certificates_of_scrapers(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    settings = f'cert = "{made.server}"\nkey = "{made.server_key}"\nclient_ca = "{made.ca}"\n'
    with scraped(tmp_path, settings) as served:
        context = ssl.create_default_context(cafile=str(made.ca))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _get_by_tls(served.port, context)
        context.load_cert_chain(made.client, made.client_key)
        assert _get_by_tls(served.port, context) == 200


def _get_by_tls(port: int, context: ssl.SSLContext) -> int:
    client = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    with closing(client):
        client.request("GET", "/metrics")
        return client.getresponse().status


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with scraped(tmp_path, f'address = "{path}"') as served:
        assert served.address == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        command = ["curl", "-s", "--unix-socket", str(path), "http://localhost/metrics"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert Metrics(done.stdout).one("orlop_metrics_containers") == 0
    assert not path.exists()


def test_the_linter_has_no_complaint(tmp_path: Path, busybox_archive: Path) -> None:
    with scraped(tmp_path) as served:
        _run(served, busybox_archive, "one")
        text = served.get().body.decode()
        complaints = promtool("check", "metrics", text=text)
        assert complaints.stdout + complaints.stderr == ""
        assert complaints.returncode == 0
        assert "\ncontainer_cpu_usage_seconds_total{" in text
        modern = served.scrape(openmetrics=True)
        assert modern.kinds["container_cpu_throttle_periods"] == "counter"
        _remove(served, "one")


def test_at_containerds_path_times_are_in_its_units_too(
    tmp_path: Path, busybox_archive: Path
) -> None:
    with scraped(tmp_path) as served:
        _run(served, busybox_archive, "one")
        served.daemon.ctr("tasks", "pause", "one")  # so that it uses no more
        served.get()  # after which the files that it has written are known
        served.daemon.wait_for(lambda: b"container_fs_inodes{" in served.get().body)
        plain, containerds = served.get(), served.get("/v1/metrics")
        served.daemon.ctr("tasks", "resume", "one")
        kinds = Metrics(containerds.body.decode()).kinds.keys()
        more = kinds - Metrics(plain.body.decode()).kinds.keys()
        lines = promtool("check", "metrics", text=containerds.body.decode()).stderr.splitlines()
        told = {line.partition(" ")[0] for line in lines if _CONTAINERDS.fullmatch(line)}
        assert len(told) == len(lines)
        assert told == more
        used = Metrics(containerds.body.decode())
        seconds = used.one("container_cpu_usage_seconds_total")
        assert used.one("container_cpu_total_nanoseconds") == pytest.approx(seconds * 1e9)
        assert seconds == Metrics(plain.body.decode()).one("container_cpu_usage_seconds_total") > 0
        _remove(served, "one")


def test_a_real_prometheus(tmp_path: Path, busybox_archive: Path) -> None:
    port = free_port()
    with scraped(tmp_path) as served:
        _run(served, busybox_archive, "watched")
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            "  - job_name: orlop\n"
            f"    static_configs: [{{targets: ['127.0.0.1:{served.port}']}}]\n"
        )
        with (tmp_path / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/tsdb",
                 f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log,
            )  # fmt: skip
        try:
            query = 'up * on() group_left container_pids_current{container_id="watched"}'
            deadline = time.monotonic() + patient(60)
            while _query(port, query) != 1:  # when runC has left it
                assert time.monotonic() < deadline, (tmp_path / "prometheus.log").read_text()
                time.sleep(0.2)
        finally:
            process.terminate()
            process.wait()
        _remove(served, "watched")


def _query(port: int, query: str) -> float | None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        try:
            client.request("GET", f"/api/v1/query?query={quote(query)}")
            found = json.loads(client.getresponse().read())["data"]["result"]
        except (OSError, ValueError, KeyError):
            return None
    return float(found[0]["value"][1]) if found else None


def test_a_slow_scraper_holds_up_nobody(tmp_path: Path) -> None:
    with scraped(tmp_path) as served:
        silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(8)]
        for each in silent[:4]:
            each.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")  # and does not read
        try:
            began = time.monotonic()
            assert served.get().status == 200
            served.daemon.ctr("version")
            assert time.monotonic() - began < patient(20)
        finally:
            for each in silent:
                each.close()


def test_hostile_scrapers(tmp_path: Path) -> None:
    with scraped(tmp_path) as served, ExitStack() as stack:
        # More than may be there at a time: they make room.
        for said in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
            for _ in range(20):
                each = socket.create_connection(("127.0.0.1", served.port))
                stack.enter_context(closing(each))
                each.sendall(said)
            began = time.monotonic()
            assert served.scrape().one("orlop_metrics_containers") == 0
            assert time.monotonic() - began < patient(20)
        refused = {
            b"\x16\x03\x01 hello\r\n\r\n": b"400",
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": b"400",
            b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (1 << 17) + b"\r\n\r\n": b"431",
            b"GET /" + b"x" * (1 << 15) + b" HTTP/1.1\r\n\r\n": b"414",
            b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n": b"405",
            b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n": b"400",
            b"GET /../../etc/passwd HTTP/1.1\r\n\r\n": b"404",
            b"GET /metrics HTTP/1.1\r\nAccept: " + b"\xff;q=," * 99 + b"\r\n\r\n": b"200",
        }
        for said, status in refused.items():
            assert _say(served.port, said)[:12] == b"HTTP/1.1 " + status, said[:60]
        assert served.scrape().one("orlop_metrics_containers") == 0


def _say(port: int, said: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=patient(20)) as connection:
        with suppress(ConnectionError):  # it need not read all
            connection.sendall(said)
        return connection.recv(4096)


def _run(served: Scraped, archive: Path, name: str) -> None:
    served.daemon.ctr("images", "import", str(archive))
    served.daemon.ctr("run", "-d", "docker.io/library/busybox:latest", name, "/bin/sleep", "1000")


def _remove(served: Scraped, name: str) -> None:
    served.daemon.ctr("task", "rm", "-f", name)
    served.daemon.ctr("container", "rm", name)
