"""`orlop-logger` as others use it: Debian's containerd with either shim, and Debian's shim here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.logger.options import Options
from tests.containerd_fixture import Containerd, run_containerd
from tests.daemon_fixture import BUSYBOX, Orlopd, serving
from tests.patience import patient

pytestmark = pytest.mark.root

LINES = 100_000
SCRIPT = f"seq {LINES}; echo err >&2; printf end"


@pytest.fixture
def with_debian_s_shim(tmp_path: Path) -> Iterator[Orlopd]:
    config = tmp_path / "config.toml"
    shim = shutil.which("containerd-shim-runc-v2")
    config.write_text(f'[runtimes]\n"io.containerd.runc.v2" = "{shim}"\n')
    yield from serving(["--config", str(config)])


@pytest.fixture(params=["containerd", "containerd with our shim", "orlopd with Debian's shim"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Containerd | Orlopd]:
    if request.param.startswith("orlopd"):
        yield request.getfixturevalue("with_debian_s_shim")
        return
    (tmp_path / "containerd").mkdir()
    with run_containerd(
        tmp_path / "containerd", own_shim=request.param.endswith("our shim")
    ) as containerd:
        yield containerd
        containerd.assert_clean()


@pytest.mark.parametrize("kind", ["json-file", "cri"])
def test_everything_is_in_the_log(
    daemon: Containerd | Orlopd, busybox_archive: Path, tmp_path: Path, kind: str
) -> None:
    daemon.ctr("images", "import", str(busybox_archive))
    uri = Options(str(tmp_path / "logs/one.log"), kind, max_size=1 << 20, max_file=100).uri
    daemon.ctr("run", "-d", "--log-uri", uri, BUSYBOX, "one", "sh", "-c", SCRIPT)
    # SIGTERM comes with the deletion, whether all is written or not.
    daemon.wait_for(lambda: "STOPPED" in daemon.ctr("tasks", "ls").stdout, patient(30))
    daemon.ctr("tasks", "rm", "one")
    daemon.ctr("containers", "rm", "one")
    wanted = {str(number) for number in range(1, LINES + 1)} | {"err", "end"}

    def written() -> bool:
        with suppress(OSError, ValueError, IndexError):  # of what is just being written
            return set(_texts(tmp_path / "logs", kind)) == wanted
        return False

    daemon.wait_for(written, patient(30))
    assert len(_texts(tmp_path / "logs", kind)) == LINES + 2


def _texts(folder: Path, kind: str) -> list[str]:
    lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
    if kind == "cri":
        return [line.split(" ", 3)[3] for line in lines]
    return [json.loads(line)["log"].removesuffix("\n") for line in lines]
