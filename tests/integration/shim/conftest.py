"""A warm fork server, a busybox root, and a fresh shim per test that must leave nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.fork.client import ForkServer
from orlop.shim.main import PATIENCE
from orlop.sys.mount import unmount_all
from tests.integration.shim.harness import (
    IMPATIENCE,
    NAMESPACE,
    RUNC_ROOT,
    Shim,
    busybox_rootfs,
    leftovers,
    names,
    process_exists,
)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    server = ForkServer(["orlop.shim.main"])
    server.start()
    yield server
    server.stop()
    for cgroup in Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}"):
        cgroup.rmdir()
    with suppress(FileNotFoundError):  # no container was made
        Path(RUNC_ROOT).rmdir()


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_rootfs(tmp_path_factory.mktemp("shim") / "root")


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short: the paths of sockets hold 107 bytes.
    made = Path(tempfile.mkdtemp(prefix="shim"))
    yield made
    for container in names(Path(RUNC_ROOT)):  # only after a failure
        subprocess.run(["runc", "--root", RUNC_ROOT, "delete", "--force", container], check=False)
    unmount_all(made)
    shutil.rmtree(made)


@pytest.fixture(params=[PATIENCE, IMPATIENCE], ids=["", "restless"])
def shim(
    fork_server: ForkServer, folder: Path, rootfs: Path, request: pytest.FixtureRequest
) -> Iterator[Shim]:
    """A shim whose hand stays through most tests, and one whose hand goes at every pause."""
    shim = Shim(fork_server, folder, rootfs, patience=request.param)
    try:
        yield shim
        shim.shutdown()
        assert not shim.path.exists()
        assert not process_exists(shim.pid)
        assert leftovers(folder) == {"mounts": [], "cgroups": [], "runc": []}
    finally:
        shim.close()
