"""nginx before a registry, as many have it: limits, redirects, and a log of what was asked."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.patience import patient
from tests.registry_fixture import await_port, free_port

_CONFIG = """
daemon off; master_process off; user root; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    log_format plain '$request_method $uri $status $request_length $body_bytes_sent';
    access_log {folder}/access.log plain;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {outer}
    server {{
        listen {host};
        client_max_body_size {body};
        {inner}
        location / {{
            proxy_pass http://{upstream}; proxy_set_header Host $http_host; {location}
        }}
    }}
}}
"""

_NO_REQUEST = "-"  # what came was none: the hello of TLS, to find out what is spoken here


@dataclass(frozen=True)
class Request:
    """One line of the log; sizes in bytes."""

    method: str
    path: str
    status: int
    received: int
    sent: int


@dataclass(frozen=True)
class Nginx:
    """A running proxy."""

    host: str
    log: Path

    def requests(self) -> list[Request]:
        """What was asked and answered so far, in the order of the answers' ends."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        found = (Request(a, b, int(c), int(d), int(e)) for a, b, c, d, e in lines)
        return [each for each in found if each.method != _NO_REQUEST]

    def await_requests(self, count: int) -> list[Request]:
        """The same, when there are `count`: a line comes after its answer."""
        end = time.monotonic() + patient(30)
        while len(found := self.requests()) < count:
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found


@contextmanager
def run_nginx(
    folder: Path,
    upstream: str,
    *,
    body: str = "0",
    outer: str = "",
    inner: str = "",
    location: str = "",
) -> Iterator[Nginx]:
    """nginx before `upstream`, which takes requests with a `body` of that size, "0" of any.

    The rest are lines of its configuration, by where they go.
    """
    port = free_port()
    host = f"127.0.0.1:{port}"
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            folder=folder,
            host=host,
            upstream=upstream,
            body=body,
            outer=outer,
            inner=inner,
            location=location,
        )
    )
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_port(port)
        assert process.poll() is None
        yield Nginx(host, folder / "access.log")
    finally:
        process.terminate()
        process.wait()
