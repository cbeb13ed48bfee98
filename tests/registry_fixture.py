"""Debian's docker-registry on loopback, and images to put into it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.patience import patient

PREPARED = os.environ.get("ORLOP_TEST_IMAGE")
"""A folder with the small image as `layout` and `busybox.tar`, where it takes long to make."""
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


USER, SECRET = "sailor", "hush-hush"
# What `htpasswd -B` makes of them.
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuu4uoW5CdSDmY8cLkib7pLDRBlvRVo8Pe\n"


@dataclass(frozen=True)
class Certificates:
    """Files of an authority of the test's own, and of a server and a client it vouches for."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    ca, ca_key = folder / "ca.crt", folder / "ca.key"
    authority = ("-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:true")
    _openssl("req", "-x509", "-days", "2", *authority, *_KEY, "-keyout", ca_key, "-out", ca)
    made = Certificates(
        ca, folder / "server.crt", folder / "server.key", folder / "me.cert", folder / "me.key"
    )
    for certificate, key in ((made.server, made.server_key), (made.client, made.client_key)):
        request, names = folder / "request", folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test")
        _openssl("req", "-subj", "/CN=test", *_KEY, "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
                 "-days", "2", "-extfile", names, "-out", certificate)  # fmt: skip
    return made


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@contextmanager
def run_registry(
    folder: Path,
    *,
    password: bool = False,
    tls: Certificates | None = None,
    clients: bool = False,
    auth: Mapping[str, object] | None = None,
) -> Iterator[str]:
    """A running registry that keeps its data in `folder`; its host:port.

    With `password` it wants USER and SECRET, with `tls` it speaks TLS, and with `clients` it wants
    to see a certificate as well; `auth` is another way to be authorized.
    """
    port = free_port()
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls.server), "key": str(tls.server_key)}
        if clients:
            http["tls"] |= {"clientcas": [str(tls.ca)]}  # type: ignore[operator]
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": f"{folder}/data"},
            "delete": {"enabled": True},
        },
        "http": http,
    }
    if password:
        (folder / "htpasswd").write_text(_HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": f"{folder}/htpasswd"}}
    if auth is not None:
        settings["auth"] = auth
    config = folder / "config.yml"
    config.write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=log
        )
    try:
        await_port(port)
        assert process.poll() is None
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Below those that the kernel gives by itself: nobody else gets it meanwhile."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)  # not `random`: workers may share a seed
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def await_port(port: int) -> None:
    end = time.monotonic() + patient(60)
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, "docker-registry does not come up"
        time.sleep(0.05)


def skopeo_copy(source: str, target: str, *options: str) -> None:
    subprocess.run(
        ["skopeo", "copy", "--quiet", *options, "--src-tls-verify=false", "--dest-tls-verify=false",
         "--insecure-policy", source, target],
        check=True, capture_output=True,
    )  # fmt: skip


def build_busybox(layout: Path) -> None:
    """An OCI layout with a small image: busybox, a user `sailor`, a group `deck`."""
    if PREPARED:
        shutil.copytree(f"{PREPARED}/layout", layout)
        return
    subprocess.run(
        [str(SCRIPTS / "make-busybox-image.sh"), str(layout)], check=True, capture_output=True
    )
