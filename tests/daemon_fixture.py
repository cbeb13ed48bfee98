"""A private orlopd for tests: started, killed, started again, and searched for leaks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

BIN = Path(sys.executable).parent
PATIENCE = 20.0


class Orlopd:
    """A daemon with its own root, state and socket below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.state = folder / "state"
        self.address = str(self.state / "o.sock")
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(BIN / "orlopd"),
                    *("--root", str(self.root)),
                    *("--state", str(self.state)),
                    *("--address", self.address),
                ],
                stdout=log,
                stderr=log,
            )
        self.wait_for(lambda: self.ctr("version", check=False).returncode == 0)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> int:
        """End it as systemd would; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill9(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def ctr_command(self, *args: str) -> list[str]:
        return ["ctr", "--address", self.address, *args]

    def ctr(
        self,
        *args: str,
        check: bool = True,
        input: str | None = None,
        stdin: IO[bytes] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run Debian's ctr; with `check`, a failure raises with what it said."""
        return self._run(self.ctr_command(*args), check, input, stdin, timeout)

    def ctr_bytes(self, *args: str) -> bytes:
        return subprocess.run(self.ctr_command(*args), stdout=subprocess.PIPE, check=True).stdout

    def orlop_command(self, *args: str) -> list[str]:
        return [str(BIN / "orlop"), "--address", self.address, *args]

    def orlop(
        self,
        *args: str,
        check: bool = True,
        input: str | None = None,
        stdin: IO[bytes] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run the orlop command."""
        return self._run(self.orlop_command(*args), check, input, stdin, timeout)

    def _run(
        self,
        command: list[str],
        check: bool,
        input: str | None,
        stdin: IO[bytes] | None,
        timeout: float,
    ) -> subprocess.CompletedProcess[str]:
        source: dict[str, object] = {"input": input} if input is not None else {
            "stdin": stdin or subprocess.DEVNULL
        }  # fmt: skip
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            command, capture_output=True, text=True, timeout=timeout, check=False, **source
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}\n"
                f"orlopd says:\n{self.log.read_text()[-2000:]}"
            )
        return done

    def wait_for(self, check: Callable[[], bool], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not check():
            if time.monotonic() > end:
                raise AssertionError(
                    f"waited {seconds} s in vain; orlopd says:\n{self.log.read_text()[-2000:]}"
                )
            time.sleep(0.05)

    def processes(self) -> list[str]:
        """Processes that work below this daemon's folder: itself, shims, containers."""
        found = []
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                where = str((proc / "cwd").readlink())
                line = (proc / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if str(self.folder) in where or str(self.folder) in line:
                found.append(f"{proc.name} {(proc / 'comm').read_text().strip()} {line}")
        return found

    def mounts(self) -> list[str]:
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in table if str(self.folder) in line]

    def leftovers(self) -> list[str]:
        """What a stopped daemon with no containers must not leave."""
        left = [*self.processes(), *self.mounts()]
        for name in ("io.containerd.runtime.v2.task", "s", "fifo"):
            left += [str(p) for p in (self.state / name).rglob("*") if not p.is_dir()]
        left += [str(p) for p in (self.root / "content" / "ingest").iterdir()]
        return left

    def close(self) -> None:
        """Stop, assert that nothing is left, and remove the folder."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
            self.wait_for(lambda: not self.leftovers(), 5)
        finally:
            for line in self.processes():
                os.kill(int(line.split()[0]), signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
