"""The daemon, and its network worker, die at each step of each operation; nothing is left of it."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.errors import NotFound, OrlopError
from orlop.runtime.bundle import FOLDER
from orlop.wire.services import network_pb2 as wire
from tests.integration.network import dying
from tests.integration.network.conftest import serving
from tests.integration.network.lab import Lab, run
from tests.integration.network.networked import Networked

ROOT = Path(__file__).parents[3]
PORTS = [{"hostPort": 8080, "containerPort": 80}]
WHO = pytest.mark.parametrize("who", ["daemon", "worker"])


class Dying(Networked):
    """One that dies, or has its worker die, after a number of steps."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", dying.__name__, *super().command()[1:]]

    @property
    def _orders(self) -> Path:
        return Path(os.environ[dying.VARIABLE])

    def arm(self, who: str, steps: int) -> None:
        self._orders.write_text(f"{who} {steps}")

    def has_died(self) -> bool:
        """Whether somebody has; nobody will from now on."""
        try:
            self._orders.unlink()
        except FileNotFoundError:
            return True
        return False

    def sweep(
        self, who: str, action: Callable[[], object], undo: Callable[[], object] = lambda: None
    ) -> None:
        """Have one die at the first step of an action, the second… until it is done before that.

        After each death all must be whole when the daemon has had its time, and `undo` work.
        """
        for steps in itertools.count():
            self.arm(who, steps)
            with suppress(OrlopError, AssertionError):
                action()
            died = self.has_died()
            if died and who == "daemon":
                self.kill9()
                self.start()
            self.wait_for(self.is_whole, 20)
            undo()
            self.wait_for(self.is_whole, 20)
            if not died:
                assert steps > 0
                return

    def is_whole(self) -> bool:
        """Whether the kernel has nothing that the records do not know."""
        with self.connect() as connection:
            networks = connection.networks.list(wire.ListNetworksRequest()).networks
            endpoints, ports = [], set()
            for each in networks:
                request = wire.InspectRequest(network=each.name)
                endpoints += connection.networks.inspect(request).endpoints
            names = {each.container_id for each in endpoints}
            for name in names:
                request = wire.InspectRequest(container_id=name)
                ports |= {each.host_port for each in connection.networks.inspect(request).ports}
            pins = connection.netns.list(wire.ListNetNSRequest()).netns
        cables = {each.host_interface for each in endpoints}
        ruleset = run("nft", "list", "ruleset").stdout
        published = {int(each) for each in re.findall(r"(?:tcp|udp) \. (\d+) :", ruleset)}
        walk = os.walk(self.state / "netns")
        files = {f"{parent}/{name}" for parent, _, names in walk for name in names}
        return (
            _interfaces("veth") - {"wire"} <= cables
            and _interfaces("bridge") <= {each.bridge for each in networks}
            and published == ports
            and files == {each.path for each in pins}
            and all(self._knows_itself(name, endpoints) for name in names)
        )

    def _knows_itself(self, name: str, endpoints: list[wire.Endpoint]) -> bool:
        """Whether a container's /etc/hosts has where it is."""
        file = self.state / FOLDER / self.namespace / name / "hosts"
        try:
            found = re.findall(rf"^(\S+)\t{name}$", file.read_text(), re.M)
        except FileNotFoundError:
            return False
        mine = [each.addresses for each in endpoints if each.container_id == name]
        return sorted(found) == sorted(address for each in mine for address in each)


def _interfaces(kind: str) -> set[str]:
    lines = run("ip", "-br", "link", "show", "type", kind).stdout.splitlines()
    return {line.split()[0].partition("@")[0] for line in lines}


@pytest.fixture
def daemon(
    lab: Lab, busybox_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Dying]:
    monkeypatch.setenv(dying.VARIABLE, str(tmp_path / "orders"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    with serving(Dying(), lab, busybox_archive) as made:
        yield made


def _remove(daemon: Dying, name: str) -> None:
    daemon.orlop("rm", "-f", name, check=False)
    daemon.wait_for(lambda: daemon.gone(name))


@WHO
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_at_the_start_of_a_container(daemon: Dying, who: str) -> None:
    daemon.create_network("one", ipv6=True)

    def undo() -> None:
        _remove(daemon, "box")
        daemon.orlop("network", "rm", "one")
        daemon.create_network("one", ipv6=True)

    places = [{"network": "one"}, {"network": "bridge"}]
    daemon.sweep(
        who,
        lambda: daemon.box("box", "sleep", "1000", networks=places, ports=PORTS),
        undo,
    )


@WHO
@pytest.mark.timeout(900)
def test_at_the_end_of_a_container(daemon: Dying, who: str) -> None:
    def again() -> None:
        _remove(daemon, "box")
        daemon.box("box", "sleep", "1000", ports=PORTS)

    def end() -> None:
        daemon.orlop("rm", "-f", "box", check=False)
        daemon.wait_for(lambda: not daemon._orders.exists() or daemon.gone("box"))

    again()
    daemon.sweep(who, end, again)


@WHO
@pytest.mark.timeout(900)
def test_while_a_container_comes_and_goes(daemon: Dying, who: str) -> None:
    daemon.box("box", "sleep", "1000", ports=PORTS)
    daemon.create_network("one", ipv6=True)
    attach = wire.AttachRequest(container_id="box", network="one")
    detach = wire.DetachRequest(container_id="box", network="one")

    def come() -> None:
        with daemon.connect() as connection:
            connection.networks.attach(attach)

    def go() -> None:
        with daemon.connect() as connection, suppress(NotFound):
            connection.networks.detach(detach)

    daemon.sweep(who, come, go)

    def again() -> None:
        go()
        come()

    again()
    daemon.sweep(who, go, again)
    assert daemon.within("box", "ip", "addr", "show", "eth1")


@WHO
@pytest.mark.timeout(900)
def test_while_networks_and_namespaces_come_and_go(daemon: Dying, who: str) -> None:
    def make() -> None:
        daemon.create_network("one")

    def used() -> None:
        with suppress(OrlopError):
            make()
        daemon.box("box", "sleep", "1000", networks=[{"network": "one"}])
        _remove(daemon, "box")

    def remove() -> None:
        with daemon.connect() as connection, suppress(NotFound):
            connection.networks.delete(wire.DeleteNetworkRequest(name="one"))

    def pin() -> None:
        with daemon.connect() as connection:
            connection.netns.create(wire.CreateNetNSRequest(name="lab"))

    def unpin() -> None:
        with daemon.connect() as connection, suppress(NotFound):
            connection.netns.delete(wire.DeleteNetNSRequest(name="lab"))

    def pin_again() -> None:
        unpin()
        pin()

    if who == "daemon":  # of records alone
        daemon.sweep(who, make, remove)
    used()
    daemon.sweep(who, remove, used)
    daemon.sweep(who, pin, unpin)
    pin()
    if who == "daemon":  # a pin goes without the worker
        daemon.sweep(who, unpin, pin_again)
    unpin()


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_while_the_daemon_makes_up_for_what_it_missed(daemon: Dying) -> None:
    """It dies while it mends, again and again, until it gets through."""
    daemon.box("stays", "sleep", "1000", ports=PORTS)
    daemon.box("goes", "sleep", "1000", networks=[{"network": "bridge"}])
    for steps in itertools.count():
        pid = daemon.pid_of("goes")
        cable = daemon.inspect("stays").endpoints[0].host_interface
        daemon.kill9()
        run("kill", "-9", str(pid))
        run("nft", "flush", "ruleset")
        run("ip", "link", "delete", cable)
        daemon.arm("daemon", steps)
        with suppress(OrlopError, AssertionError):
            daemon.start()
            daemon.wait_for(
                lambda: (
                    daemon.is_whole()
                    and "inet" in daemon.within("stays", "ip", "addr", "show", "eth0", check=False)
                ),
                20,
            )
        if died := daemon.has_died():
            daemon.kill9()
            daemon.start()
        daemon.wait_for(daemon.is_whole, 20)
        daemon.wait_for(lambda: daemon.gone("goes"))
        daemon.wait_for(
            lambda: "inet" in daemon.within("stays", "ip", "addr", "show", "eth0", check=False)
        )
        if not died:
            assert steps > 0
            return
        daemon.orlop("rm", "-f", "goes")
        daemon.box("goes", "sleep", "1000", networks=[{"network": "bridge"}])
