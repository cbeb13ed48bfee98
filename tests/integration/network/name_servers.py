"""Name servers for containers to be asked through: dnsmasq, and one that does all that is wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.network.lab import Host, run

_HOSTILE = Path(__file__).with_name("hostile_dns.py")
LONG = ["--txt-record=long.test," + ",".join(["x" * 200] * 12)]


@contextmanager
def dnsmasq(address: str, *options: str, host: Host | None = None) -> Iterator[None]:
    """It knows `*.example.test` and what the options say, on port 53 of an address."""
    command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file",
               "--user=root", "--no-resolv", "--no-hosts", "--local=/test/",
               "--dns-forward-max=5000", "--address=/example.test/203.0.113.7",
               *options]  # fmt: skip
    if address:
        command += [f"--listen-address={address}", "--bind-interfaces"]
    with _running(command, address or "127.0.0.1", host):
        yield


@contextmanager
def hostile(address: str, host: Host) -> Iterator[None]:
    """See `hostile_dns.py`."""
    with _running([sys.executable, str(_HOSTILE), address], address, host):
        yield


@contextmanager
def _running(command: list[str], address: str, host: Host | None) -> Iterator[None]:
    inside = host.command if host is not None else lambda *words: list(words)
    with subprocess.Popen(inside(*command)) as serving:
        try:
            asking = inside(
                "dig", f"@{address}", "+tcp", "+tries=1", "+time=1", "ready.example.test"
            )
            while "status" not in run(*asking, check=False).stdout:
                assert serving.poll() is None, "it has ended"
                time.sleep(0.02)
            yield
        finally:
            serving.terminate()
