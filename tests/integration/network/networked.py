"""An orlopd that connects containers, in a network namespace of the test's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from orlop.wire.services import network_pb2 as wire
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.integration.network.lab import Host, run

SERVE = "mkdir -p /w; hostname >/w/index.html; exec httpd -f -p 80 -h /w"


def _is_settled(ip: list[str]) -> bool:
    """Whether every interface that is set up is up, which the kernel tells a moment later."""
    up = [each for each in run(*ip, "link").stdout.splitlines() if ",UP" in each]
    return all(": lo:" in each or "state UP" in each for each in up)


class Networked(Orlopd):
    """Its containers are in a network unless they are told otherwise."""

    def __init__(self, options: Sequence[str] = (), *, firewall: str = "") -> None:
        super().__init__(options)
        self.network = "bridge"
        self.firewall = firewall
        if firewall:
            config = self.folder / "config.toml"
            config.write_text(f'[network]\nfirewall = "{firewall}"\n')
            self.options += ["--config", str(config)]

    def box(
        self,
        name: str,
        *command: str,
        networks: Sequence[dict[str, Any]] = ({"network": "bridge"},),
        ports: Sequence[dict[str, Any]] = (),
        dns: Sequence[str] = (),
        options: Sequence[str] = (),
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a container detached; a web server that shows its host name if nothing else.

        By labels, as any client may: they win over those of the command.
        """
        wishes = {"mode": "networks", "networks": list(networks), "dns": list(dns)}
        labels = ["-l", f"orlop/network={json.dumps(wishes)}"]
        if ports:
            labels += ["-l", f"orlop/ports={json.dumps(ports)}"]
        what = command or ("sh", "-c", SERVE)
        where = ("run", "-d", "--name", name, "-h", name, "--network", "none", *labels, *options)
        done = self.orlop(*where, BUSYBOX, *what, check=check)
        if done.returncode == 0 and not command:
            self.wait_until_it_serves(name)
        return done

    def wait_until_it_serves(self, name: str) -> None:
        """A web server takes a moment."""
        asking = ("nsenter", f"--net=/proc/{self.pid_of(name)}/ns/net", "curl", "-s", "-m", "5")
        self.wait_for(lambda: run(*asking, "http://127.0.0.1", check=False).returncode == 0)

    def inspect(self, name: str) -> wire.InspectResponse:
        with self.connect() as connection:
            answer: wire.InspectResponse = connection.networks.inspect(
                wire.InspectRequest(container_id=name)
            )
        return answer

    def address_of(self, name: str) -> str:
        return self.inspect(name).endpoints[0].addresses[0]

    def pid_of(self, name: str) -> int:
        return int(json.loads(self.orlop("inspect", name).stdout)[0]["State"]["Pid"])

    def keep_over_a_restart(self, network: str, *changes: tuple[str, ...]) -> None:
        """What ip does in containers stays; one whose interface is gone gets another."""
        names = [f"box{number}" for number in range(len(changes) + 1)]
        for name in names:
            self.box(name, "sleep", "1000", networks=[{"network": network}])
        *kept, lost = [
            f"nsenter --net=/proc/{self.pid_of(name)}/ns/net ip".split() for name in names
        ]
        for ip, commands in zip(kept, changes, strict=True):
            for command in commands:
                run(*ip, *command.split())
        self.wait_for(lambda: all(map(_is_settled, kept)))
        before = [run(*ip, "link").stdout for ip in kept]
        run(*lost, "link", "del", "eth0")
        self.kill9()
        self.start()
        self.wait_for(lambda: "eth0" in run(*lost, "link").stdout)  # the last one
        assert [run(*ip, "link").stdout for ip in kept] == before

    def within(self, name: str, *command: str, check: bool = True) -> str:
        """What a command prints in a container; with `check`, its failure fails the test."""
        return self.orlop("exec", name, *command, check=check).stdout

    def create_network(self, name: str, **fields: Any) -> wire.Network:
        subnets = [wire.Subnet(subnet=each) for each in fields.pop("subnets", ())]
        ipv6 = fields.pop("ipv6", False)
        with self.connect() as connection:
            request = wire.CreateNetworkRequest(
                network=wire.Network(name=name, subnets=subnets, **fields), ipv6=ipv6
            )
            made: wire.Network = connection.networks.create(request).network
        return made

    def gone(self, name: str) -> bool:
        return not self.inspect(name).endpoints

    def prune(self) -> None:
        """Remove all containers, and all networks."""
        names = self.orlop("ps", "-aq").stdout.split()
        if names:
            self.orlop("rm", "-f", *names)
        for name in names:
            self.wait_for(lambda name=name: self.gone(name))  # type: ignore[misc]
        with self.connect() as connection:
            connection.networks.prune(wire.PruneNetworksRequest())
            rest = connection.networks.list(wire.ListNetworksRequest()).networks
            assert all(each.driver == "cni" for each in rest)


def fetch(url: str, host: Host | None = None) -> str:
    """What a web server says, "" if it does not; from here, or from another host."""
    command = ("curl", "-sS", "-g", "-m", "10", "--retry", "5", "--retry-connrefused", url)
    done = host.run(*command, check=False) if host is not None else run(*command, check=False)
    return done.stdout.strip()


def refused(url: str, host: Host | None = None) -> bool:
    """Whether nobody answers there at once, or within a moment."""
    command = ("curl", "-sS", "-g", "-m", "2", url)
    done = host.run(*command, check=False) if host is not None else run(*command, check=False)
    return done.returncode in (7, 28)
