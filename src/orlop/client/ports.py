"""Ports of a container that the host publishes, as its label tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orlop.client import networks
from orlop.client.connection import Connection
from orlop.errors import InvalidArgument
from orlop.wire.services import containers_pb2

LABEL = "orlop/ports"
"""A JSON list of CNI port mappings: hostPort, containerPort, protocol, hostIP, and a count.

A hostPort 0 is any that is free, or with a hostPortEnd one of those from hostPort on: the daemon
knows which one while the container runs."""


class Port(NamedTuple):
    """A port inside, and where it is reached outside."""

    inside: int
    protocol: str
    host: str
    outside: int

    @property
    def name(self) -> str:
        return f"{self.inside}/{self.protocol}"

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.outside}"


def of(container: containers_pb2.Container) -> Sequence[Port]:
    """The published ports; InvalidArgument for a label that is no such list."""
    text = container.labels.get(LABEL, "[]")
    try:
        found = [
            Port(
                int(each["containerPort"]) + step,
                str(each.get("protocol") or "tcp").lower(),
                str(each.get("hostIP") or "0.0.0.0"),
                0 if each.get("hostPortEnd") else int(each.get("hostPort") or 0) + step,
            )
            for each in json.loads(text)
            for step in range(int(each.get("count") or 1))
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidArgument(
            f'container "{container.id}": label {LABEL}="{text}" is no list of ports'
        ) from None
    return sorted(found, key=lambda port: (port.inside, port.protocol, port.host))


def published(connection: Connection, container: containers_pb2.Container) -> Sequence[Port]:
    """As `of`, with the ports that the daemon has chosen; without those if it does not run."""
    wanted = of(container)
    if all(each.outside for each in wanted):
        return wanted
    chosen = [
        Port(each.container_port, each.protocol, each.host_address or "0.0.0.0", each.host_port)
        for each in networks.inspect(connection, container=container.id).ports
        if each.count <= 1
    ]
    open_ones = {(each.inside, each.protocol, each.host) for each in wanted if not each.outside}
    taken = {each.outside for each in wanted}
    fitting = [
        each
        for each in chosen
        if (each.inside, each.protocol, each.host) in open_ones and each.outside not in taken
    ]
    found = [each for each in wanted if each.outside] + fitting
    return sorted(found, key=lambda port: (port.inside, port.protocol, port.host))


def ranges(found: Iterable[Port]) -> list[str]:
    """Where ports are published: `0.0.0.0:80->80/tcp`, and in a row `0.0.0.0:90-9->90-9/tcp`."""
    rows: list[list[Port]] = []
    for each in sorted(found, key=lambda port: (port.protocol, port.host, port.inside)):
        before = rows[-1][-1] if rows else None
        if before is not None and each == before._replace(
            inside=before.inside + 1, outside=before.outside + 1
        ):
            rows[-1].append(each)
        else:
            rows.append([each])
    rows.sort(key=lambda row: (row[0].inside, row[0].protocol, row[0].host))
    return [
        f"{row[0].address}->{row[0].name}"
        if len(row) == 1
        else f"{row[0].address}-{row[-1].outside}->{row[0].inside}-{row[-1].name}"
        for row in rows
    ]
