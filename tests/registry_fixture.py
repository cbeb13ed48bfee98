"""Debian's docker-registry on loopback, and images to put into it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@contextmanager
def run_registry(folder: Path) -> Iterator[str]:
    """A running registry that keeps its data in `folder`; its host:port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
        f'http: {{addr: "127.0.0.1:{port}"}}\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=log
        )
    try:
        _await(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _await(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, "docker-registry does not come up"
        time.sleep(0.05)


def skopeo_copy(source: str, target: str) -> None:
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false",
         "--insecure-policy", source, target],
        check=True, capture_output=True,
    )  # fmt: skip


def build_busybox(layout: Path) -> None:
    """An OCI layout with a small image: busybox, a user `sailor`, a group `deck`."""
    subprocess.run(
        [str(SCRIPTS / "make-busybox-image.sh"), str(layout)], check=True, capture_output=True
    )
