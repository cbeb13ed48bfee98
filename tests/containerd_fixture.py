"""Debian's containerd, private, to compare with."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAMESPACE = "compared"
_PATIENCE = 20.0


class Containerd:
    """A running containerd whose folders and socket are below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "state" / "d.sock")

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["ctr", "--address", self.address, "--namespace", _NAMESPACE, *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done


@contextmanager
def run_containerd(folder: Path) -> Iterator[Containerd]:
    """A running containerd without CRI, which ends with the context."""
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{folder}/state/d.sock"\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
    made = Containerd(folder)
    try:
        end = time.monotonic() + _PATIENCE
        while made.ctr("version", check=False).returncode:
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait()
