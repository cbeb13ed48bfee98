"""Several containers that belong together: docker-compose, and a swarm of one node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

COMPOSE = """
version: "3.7"
services:
  store:
    image: busybox
    command: sh -c 'echo open; mkdir /www; echo tea >/www/index.html; exec httpd -f -h /www'
    volumes: ["hold:/hold"]
    healthcheck: {test: "wget -qO- 127.0.0.1", interval: 1s}
  relay:
    build: relay
    depends_on: [store]
    networks: [default, deck]
    environment: {FROM: store}
  buyer:
    image: busybox
    command: sh -c 'until wget -qO- relay; do sleep 0.1; done >/hold/bought; sleep 1000'
    depends_on: [relay]
    networks: [deck]
    volumes: ["hold:/hold"]
    stop_signal: SIGKILL
volumes: {hold: {}}
networks: {deck: {}}
"""
RELAY = """
FROM busybox
RUN mkdir /www
CMD until wget -qO /www/index.html $FROM; do sleep 0.1; done; exec httpd -f -h /www
"""


def test_compose(dockerd: Dockerd, tmp_path: Path) -> None:
    """One service asks the second for what that has from the third."""
    project = tmp_path / "fleet"
    (project / "relay").mkdir(parents=True)
    (project / "docker-compose.yml").write_text(COMPOSE)
    (project / "relay" / "Dockerfile").write_text(RELAY)
    dockerd.compose(project, "up", "--detach")
    bought = ("run", "--rm", "-v", "fleet_hold:/hold", "busybox", "cat", "/hold/bought")
    dockerd.wait_for(lambda: dockerd.docker(*bought, check=False).stdout == "tea\n", 60)
    assert dockerd.compose(project, "ps", "--services").split() == ["store", "relay", "buyer"]
    assert dockerd.compose(project, "exec", "-T", "store", "cat", "/www/index.html") == "tea\n"
    dockerd.compose(project, "up", "--detach", "--scale", "store=2")
    assert dockerd.out("ps", "-q", "--filter", "label=com.docker.compose.service=store").count("\n")
    began = started(dockerd, "fleet_relay_1")
    dockerd.compose(project, "restart", "--timeout", "0", "relay")
    assert started(dockerd, "fleet_relay_1") > began
    logged = dockerd.compose(project, "logs").splitlines()
    assert any("store_1" in line and "| open" in line for line in logged)
    dockerd.compose(project, "down", "--timeout", "0", "--volumes", "--rmi", "local")
    assert dockerd.out("ps", "-aq") == dockerd.out("volume", "ls", "-q") == ""
    assert "fleet" not in dockerd.out("network", "ls")


def started(dockerd: Dockerd, name: str) -> str:
    return dockerd.out("inspect", "--format", "{{.State.StartedAt}}", name)


@pytest.fixture
def swarm(dockerd: Dockerd) -> Iterator[Dockerd]:
    """The dockerd as a swarm of its own."""
    dockerd.docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
    yield dockerd
    dockerd.docker("swarm", "leave", "--force")
    dockerd.docker("network", "rm", "docker_gwbridge", check=False)


def test_swarm_with_a_replicated_service(swarm: Dockerd) -> None:
    assert swarm.out("node", "ls", "--format", "{{.Availability}} {{.Status}}") == "Active Ready"
    swarm.docker("network", "create", "--driver", "overlay", "--attachable", "lane")
    swarm.docker("config", "create", "orders", "-", input="north by east\n")
    swarm.docker(
        "service", "create", "--detach", "--no-resolve-image", "--name", "boats", "--replicas", "2",
        "--config", "orders", "--network", "lane", "--endpoint-mode", "dnsrr", "busybox",
        "sh", "-c", "trap 'exit 0' TERM; cat /orders; sleep 1000 & wait",
    )  # fmt: skip

    def running() -> list[str]:
        return swarm.out(
            "ps", "-q", "--filter", "label=com.docker.swarm.service.name=boats"
        ).split()

    swarm.wait_for(lambda: len(running()) == 2, 60)
    swarm.wait_for(lambda: swarm.out("service", "logs", "--raw", "boats").count("north") == 2, 30)
    look = ("run", "--rm", "--network", "lane", "busybox", "nslookup", "boats")
    swarm.wait_for(lambda: swarm.docker(*look, check=False).stdout.count("Address: 10.") == 2, 60)
    swarm.docker("service", "scale", "--detach", "boats=3")
    swarm.wait_for(lambda: len(running()) == 3, 60)
    victim = running()[0]
    swarm.docker("kill", victim)  # the swarm notices, and starts another
    swarm.wait_for(lambda: len(running()) == 3 and victim not in running(), 60)
    swarm.docker("service", "rm", "boats")
    swarm.wait_for(lambda: not running(), 60)
