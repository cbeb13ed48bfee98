"""What a dockerd stands on: a network namespace, and in it orlopd or Debian's containerd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
        self._daemon = daemon
        self._holder = daemon.spawn(["unshare", "--net", "sleep", "infinity"], daemon.log)
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")
        name = Path(f"/proc/{self._holder.pid}/comm")
        daemon.wait_for(lambda: name.read_text() == "sleep\n")  # then it is in there
        self.inside = ["nsenter", f"--net={self.path}"]
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str) -> str:
        """What a command prints that runs in there."""
        return subprocess.run(
            [*self.inside, *command], check=True, capture_output=True, text=True
        ).stdout

    @contextmanager
    def neighbour(self, here: str, there: str) -> Iterator[Harbour]:
        """Another host on a cable, whose end has the address `there`; ours has `here`."""
        other = Harbour(self._daemon)
        try:
            holder = str(other._holder.pid)
            self.run("ip", "link", "add", "wire", "type", "veth",
                     "peer", "name", "eth0", "netns", holder)  # fmt: skip
            for host, name, address in ((self, "wire", here), (other, "eth0", there)):
                host.run("ip", "address", "add", f"{address}/24", "dev", name)
                host.run("ip", "link", "set", name, "up")
            yield other
            self.run("ip", "link", "delete", "wire")
        finally:
            other.close()

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


ENGINES: dict[str, type[Orlopd]] = {"containerd": Containerd, "orlopd": Orlopd}
