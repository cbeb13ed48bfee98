"""Containers' networks made and unmade: our bridge against CNI's plugins, a published port each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.api import at_once
from benchmarks.measure import Result, at_most, medians, seconds
from benchmarks.netlab import namespaces, own_network
from benchmarks.rivals import NAMESPACE, await_, folder
from benchmarks.stage import Stage
from orlop.client import Connection
from orlop.errors import Unavailable
from orlop.network.cni import Attachment, Cni, Plugins, Results, parsing
from orlop.wire.services import network_pb2 as wire

_CROWD = 50
_DEBIAN = Path("/usr/lib/cni")
_GROUP = "bench"
_FIRST_PORT = 20000


class Way:
    """A way to attach and detach the namespace of a number."""

    def __init__(self, attach: Callable[[int], object], detach: Callable[[int], object]) -> None:
        self.attach = attach
        self.detach = detach

    def one(self) -> float:
        """Seconds for one alone."""

        def come_and_go() -> None:
            self.attach(0)
            self.detach(0)

        return seconds(come_and_go)

    def crowd(self) -> float:
        """Seconds for each of many: all come at once, and go at once."""
        return (_crowd(self.attach) + _crowd(self.detach)) / _CROWD


def _crowd(action: Callable[[int], object]) -> float:
    names = [str(number) for number in range(_CROWD)]
    return seconds(lambda: at_once(_CROWD, lambda name: action(int(name)), names))


def bench_attach(stage: Stage) -> list[Result]:
    """Attach plus detach, one at a time and many at once."""
    rounds = 5 if stage.quick else 20
    with (
        folder("attach") as path,
        own_network(),
        namespaces(path, _CROWD) as paths,
        private_orlopd(path) as connection,
    ):
        ours, theirs = _ours(connection, paths), _chain(path, paths)
        plugin, plain = _plugin(path, connection.address, paths), _plain(path, paths)
        found = []
        for what, one, other, budget in (
            ("attach + detach: orlopd / CNI chain", ours, theirs, at_most(0.3)),
            ("attach + detach: orlop-cni / CNI chain", plugin, theirs, None),
            ("attach + detach: our runner / plugins alone", theirs, plain, None),
        ):
            times = medians(one.one, other.one, rounds)
            found.append(Result.of(what, _ms(times), "ms", budget))
            times = medians(one.crowd, other.crowd, 1 if stage.quick else 3)
            found.append(Result.of(f"{what}, {_CROWD} at once", _ms(times), "ms", budget))
        return found


def _ms(times: Sequence[float]) -> list[float]:
    return [1000 * each for each in times]


@contextmanager
def private_orlopd(path: Path, inside: Sequence[str] = ()) -> Iterator[Connection]:
    """One that makes networks, in this network or where `inside` leads."""
    address = f"{path}/state/d.sock"
    command = [
        *inside,
        str(Path(sys.executable).parent / "orlopd"), "--root", f"{path}/root",
        "--state", f"{path}/state", "--address", address,
    ]  # fmt: skip
    with (path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        await_(lambda: _serves(address), "orlopd")
        with Connection(address, NAMESPACE) as connection:
            yield connection
    finally:
        process.terminate()
        process.wait()


def _serves(address: str) -> bool:
    try:
        Connection(address, NAMESPACE).close()
    except Unavailable:
        return False
    return True


def _ours(connection: Connection, paths: Sequence[str]) -> Way:
    """By the API of the daemon."""

    def guest(number: int) -> wire.NamespaceID:
        return wire.NamespaceID(group=_GROUP, id=f"box{number}", interface="eth0")

    def attach(number: int) -> None:
        port = wire.Port(container_port=80, host_port=_FIRST_PORT + number)
        request = wire.AttachNamespaceRequest(
            id=guest(number), netns=paths[number], network="bridge", ports=[port]
        )
        connection.networks.attach_namespace(request)

    return Way(
        attach,
        lambda number: connection.networks.detach_namespace(
            wire.DetachNamespaceRequest(id=guest(number))
        ),
    )


def _by_runner(cni: Cni, config: dict[str, Any], paths: Sequence[str]) -> Way:
    network = parsing.network(config)

    def attachment(number: int) -> Attachment:
        return Attachment(
            container_id=f"box{number}",
            ifname="eth0",
            netns=paths[number],
            capabilities={"portMappings": [_mapping(number)]},
        )

    return Way(
        lambda number: cni.add(network, attachment(number)),
        lambda number: cni.delete(network, attachment(number)),
    )


def _mapping(number: int) -> dict[str, Any]:
    return {"hostPort": _FIRST_PORT + number, "containerPort": 80, "protocol": "tcp"}


def _chain(path: Path, paths: Sequence[str]) -> Way:
    """Debian's bridge, host-local and portmap, by our own runner."""
    cni = Cni(Plugins([_DEBIAN]), Results(path / "cache"))
    return _by_runner(cni, _chain_config(path), paths)


def _chain_config(path: Path) -> dict[str, Any]:
    ipam = {
        "type": "host-local", "dataDir": str(path / "host-local"),
        "ranges": [[{"subnet": "10.66.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
    }  # fmt: skip
    bridge = {"type": "bridge", "bridge": "benchcni0", "isGateway": True, "ipMasq": True,
              "hairpinMode": True, "ipam": ipam}  # fmt: skip
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": _GROUP, "plugins": [bridge, portmap]}


def _plugin(path: Path, address: str, paths: Sequence[str]) -> Way:
    """Our own plugin."""
    here = Path(sys.executable).parent
    plugin = {"type": "orlop-cni", "address": address, "namespace": NAMESPACE,
              "capabilities": {"portMappings": True}}  # fmt: skip
    config = {"cniVersion": "1.0.0", "name": _GROUP, "plugins": [plugin]}
    return _by_runner(Cni(Plugins([here]), Results(path / "cache2")), config, paths)


def _plain(path: Path, paths: Sequence[str]) -> Way:
    """The chain's programs alone, one after another: what any runtime must wait for at least."""
    config = _chain_config(path)
    bridge, portmap = config["plugins"]
    base = {"name": config["name"], "cniVersion": config["cniVersion"]}

    def call(command: str, number: int, plugin: dict[str, Any], result: object) -> object:
        text = {**plugin, **base}
        if plugin is portmap:
            text["runtimeConfig"] = {"portMappings": [_mapping(number)]}
        if result is not None:
            text["prevResult"] = result
        env = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": f"box{number}", "CNI_IFNAME": "eth0",
            "CNI_NETNS": paths[number], "CNI_PATH": str(_DEBIAN), "PATH": os.environ["PATH"],
        }  # fmt: skip
        done = subprocess.run(
            [_DEBIAN / plugin["type"]], input=msgspec.json.encode(text), env=env,
            capture_output=True, check=True,
        )  # fmt: skip
        return msgspec.json.decode(done.stdout) if done.stdout.strip() else None

    results: dict[int, object] = {}

    def attach(number: int) -> None:
        first = call("ADD", number, bridge, None)
        results[number] = call("ADD", number, portmap, first)

    def detach(number: int) -> None:
        for plugin in (portmap, bridge):
            call("DEL", number, plugin, results[number])

    return Way(attach, detach)
