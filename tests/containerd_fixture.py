"""Debian's containerd, private, to compare with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.daemon_fixture import Orlopd, remove_namespace
from tests.patience import patient

_PATIENCE = patient(60)


class Containerd:
    """A running containerd whose folders and socket are below `folder`."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.address = str(folder / "state" / "d.sock")
        self._tasks = folder / "state" / "io.containerd.runtime.v2.task"
        self.namespace = namespace

    def ctr_command(self, *arguments: str) -> list[str]:
        """The command line of `ctr`, to be started otherwise."""
        return ["ctr", "--address", self.address, "--namespace", self.namespace, *arguments]

    def ctr(
        self, *arguments: str, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.ctr_command(*arguments),
            input=input or "", capture_output=True, text=True, timeout=patient(60), check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done

    wait_for = staticmethod(Orlopd.wait_for)

    def assert_clean(self) -> None:
        """Fail if a task was left."""
        self.wait_for(lambda: not list(self._tasks.glob("*/*")))


@contextmanager
def run_containerd(folder: Path, *, own_shim: bool = False, more: str = "") -> Iterator[Containerd]:
    """A running containerd without CRI, which ends with the context.

    With `own_shim` it runs containers by orlop's shim, also those that name runc's. `more` is added
    to its configuration.
    """
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{folder}/state/d.sock"\n{more}'
    )
    environment = dict(os.environ)
    if own_shim:
        (folder / "bin").mkdir()
        shim = Path(sys.executable).parent / "containerd-shim-orlop-v2"
        (folder / "bin" / "containerd-shim-runc-v2").symlink_to(shim)
        environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["containerd", "-c", str(config)], stdout=log, stderr=log, env=environment
        )
    # Cgroups and runc's state are named by namespace and container, for all daemons of a machine.
    made = Containerd(folder, f"compared-{process.pid}")
    try:
        end = time.monotonic() + _PATIENCE
        while made.ctr("version", check=False).returncode:
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait()
        remove_namespace(made.namespace)
