"""What a dockerd stands on: a network namespace, and in it orlopd or Debian's containerd."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.daemon_fixture import Orlopd


class Containerd(Orlopd):
    """Debian's containerd in an orlopd's place: the proof that a test asks for nothing of ours."""

    def command(self) -> list[str]:
        config = self.folder / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.root}"\nstate = "{self.state}"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.address}"\n'
        )
        return ["containerd", "--config", str(config)]

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.ctr("version", check=False).returncode == 0

    def leftovers(self) -> dict[str, list[str]]:
        """Without its sockets, which it leaves when it is killed."""
        found = super().leftovers()
        found.pop("sockets", None)
        return found


class Harbour:
    """A network namespace with loopback alone, as long as a process of ours sleeps in it."""

    def __init__(self, daemon: Orlopd) -> None:
        self._holder = daemon.spawn(["unshare", "--net", "sleep", "infinity"], daemon.log)
        here = Path("/proc/self/ns/net").readlink()
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")
        daemon.wait_for(lambda: self.path.readlink() != here)
        self.inside = ["nsenter", f"--net={self.path}"]
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str) -> str:
        """What a command prints that runs in there."""
        return subprocess.run(
            [*self.inside, *command], check=True, capture_output=True, text=True
        ).stdout

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


ENGINES: dict[str, type[Orlopd]] = {"containerd": Containerd, "orlopd": Orlopd}
