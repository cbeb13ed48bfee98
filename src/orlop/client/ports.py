"""Ports of a container that the host publishes, as its label tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from orlop.errors import InvalidArgument
from orlop.wire.services import containers_pb2

LABEL = "orlop/ports"
"""A JSON list of CNI port mappings: hostPort, containerPort, protocol, hostIP."""


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
                int(each["containerPort"]),
                str(each.get("protocol") or "tcp").lower(),
                str(each.get("hostIP") or "0.0.0.0"),
                int(each["hostPort"]),
            )
            for each in json.loads(text)
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidArgument(
            f'container "{container.id}": label {LABEL}="{text}" is no list of ports'
        ) from None
    return sorted(found, key=lambda port: (port.inside, port.protocol, port.host))
