"""Two thousand come and two thousand go, fifty at a time; and all is as before."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orlop.errors import OrlopError
from orlop.wire.services import network_pb2 as wire
from tests.integration.network.lab import run, snapshot
from tests.integration.network.networked import Networked

BOXES = 10
NETWORKS = 5
ROUNDS = 40


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_two_thousand_attach_and_detach_in_parallel(daemon: Networked) -> None:
    """Each of ten containers in and out of each of five networks, by clients of their own."""
    boxes = [f"box{number}" for number in range(BOXES)]
    networks = [f"net{number}" for number in range(NETWORKS)]
    for name in boxes:
        daemon.box(name, "sleep", "10000", ports=[{"hostPort": 0, "containerPort": 80}])
    before, files = _all_there_is(daemon), _files(daemon)
    for name in networks:
        daemon.create_network(name, ipv6=True)
    problems: list[str] = []

    def come_and_go(box: str, network: str) -> None:
        attach = wire.AttachRequest(container_id=box, network=network)
        detach = wire.DetachRequest(container_id=box, network=network)
        with daemon.connect() as connection:
            for _ in range(ROUNDS):
                try:
                    made = connection.networks.attach(attach).endpoint
                    assert len(made.addresses) == 2
                    connection.networks.detach(detach)
                except (OrlopError, AssertionError) as error:
                    problems.append(f"{box} {network}: {error}")

    threads = [
        threading.Thread(target=come_and_go, args=(box, network))
        for box in boxes
        for network in networks
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not problems, problems[:5]
    with daemon.connect() as connection:
        for name in networks:
            assert not connection.networks.inspect(wire.InspectRequest(network=name)).endpoints
            connection.networks.delete(wire.DeleteNetworkRequest(name=name))
    assert _all_there_is(daemon) == before
    assert _files(daemon) <= files


def _all_there_is(daemon: Networked) -> dict[str, list[str]]:
    """What is seen from here, and from each container."""
    found = snapshot()
    # The kernel gives addresses by which it listens, and the state of a link, in its own time.
    found["addresses"] = [line for line in found["addresses"] if not line.startswith("veth")]
    found["links"] = sorted(line.split()[0] for line in found["links"])
    found["routes"] = [line for line in found["routes"] if "dev veth" not in line]
    for number in range(BOXES):
        ns = f"--net=/proc/{daemon.pid_of(f'box{number}')}/ns/net"
        for what in ("link", "addr", "route"):
            shown = run("nsenter", ns, "ip", "-br", what).stdout
            found[f"box{number} {what}"] = shown.splitlines()
    return found


def _files(daemon: Networked) -> set[str]:
    """The files of the daemon, but those that databases come and go with."""
    folders: tuple[Path, ...] = (daemon.root, daemon.state)
    return {
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if "rootfs" not in path.parts and "metadata.db" not in path.name
    }
