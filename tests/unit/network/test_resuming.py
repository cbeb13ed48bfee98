"""What a daemon makes up for after its start, beside clients that are served already."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.errors import Unavailable
from orlop.network.model import Network, Port
from orlop.network.processes import BEING_MADE, NOBODY, Pids
from orlop.network.resuming import Resuming

WEB, GONE = ("ns", "web"), ("ns", "gone")


class Bench:
    """Two containers in a network, by the records of an earlier daemon; one of them runs."""

    def __init__(self) -> None:
        self.released: list[tuple[str, str]] = []
        self.looked_into: list[str] = []
        self.running = {WEB: 7}
        self.pids = Pids()
        self.known = [WEB, GONE]
        self.failing = False
        network = Network(id="n", namespace="ns", name="n", driver="macvlan")
        self.networks = [network]
        self.ports: list[Port] = []
        self.held: list[Sequence[int]] = []
        store = SimpleNamespace(
            endpoints=self._endpoints, release=self._release, all=lambda: self.networks,
            ports_of=lambda *_: self.ports,
        )  # fmt: skip
        self.plugged: list[str] = []
        cables = SimpleNamespace(
            unplug=lambda *_: None,
            plug=lambda each, _: self.plugged.append(each.container),
            keep_worker=lambda: None,
        )
        connections = SimpleNamespace(
            cables=cables, pids=self.pids, turn=lambda *_: nullcontext(),
            cni=SimpleNamespace(endpoints=list, resume=lambda _: None),
        )  # fmt: skip
        networks = SimpleNamespace(
            store=store, get=lambda *_: network, ensure=lambda _: None, refresh=lambda: None,
            names=SimpleNamespace(resume=lambda: None),
        )  # fmt: skip
        ports = SimpleNamespace(
            release=lambda _: None, holds=lambda _: False,
            hold=lambda _key, _ports, versions, loopback: self.held.append(versions),
        )  # fmt: skip
        self.resuming = Resuming(*map(_any, (connections, networks, self, ports)))

    def _endpoints(self, *key: str) -> list[Any]:
        return [
            SimpleNamespace(
                namespace=ns,
                container=name,
                network=network.id,
                link="l",
                inside="eth0",
                versions=[6] if network.publishes else [4],
            )
            for ns, name in self.known
            for network in self.networks
            if key in {(), (ns, name)}
        ]

    def _release(self, *key: str) -> None:
        self.known = [each for each in self.known if each != key]

    def links(self, ns: str = "") -> list[Any]:
        """Those of the kernel: there are none."""
        if ns and self.failing:
            raise Unavailable("the worker died")
        if ns:
            self.looked_into.append(ns)
        return []

    def pid_of(self, *key: str) -> int:
        return next((pid for each, pid in self.running.items() if each == key), 0)


def _any(value: object) -> Any:
    return value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_who_runs_is_known_at_once_and_looked_after_once(bench: Bench) -> None:
    """At once: who takes it out of a network before that must know where it is."""
    bench.resuming.forget_ended(bench.pid_of)
    assert bench.known == [WEB]
    assert bench.pids.get(WEB, NOBODY) == 7
    for _ in range(2):
        bench.resuming.resume(bench.pid_of)
        bench.resuming.forget_ended(bench.pid_of)
    assert bench.plugged == ["web"]


def test_who_could_not_be_looked_after_is_so_the_next_time(bench: Bench) -> None:
    bench.resuming.forget_ended(bench.pid_of)
    bench.failing = True
    bench.resuming.resume(bench.pid_of)
    bench.failing = False
    bench.resuming.resume(bench.pid_of)
    assert bench.plugged == ["web"]


def test_ports_are_held_where_they_lead_to(bench: Bench) -> None:
    """Not where the container came first: no port leads into that network."""
    bench.networks.append(Network(id="b", namespace="ns", name="b", bridge="b"))
    bench.ports.append(Port(container_port=80, host_port=8080))
    bench.resuming.forget_ended(bench.pid_of)
    bench.resuming.resume(bench.pid_of)
    assert bench.held == [[6]]


@pytest.mark.parametrize(("known", "found"), [(8, 7), (BEING_MADE, 0)])
def test_who_is_started_again_meanwhile_is_its_client_s(
    bench: Bench, known: int, found: int
) -> None:
    """Whatever is found of it: the exit of the one before is heard late."""
    bench.resuming.forget_ended(bench.pid_of)
    bench.pids.put(WEB, known)
    bench.running[WEB] = found
    bench.resuming.resume(bench.pid_of)
    assert bench.looked_into == bench.plugged == []
