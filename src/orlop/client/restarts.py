"""Restart policies, as the daemon's restart monitor reads them from a container's labels."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client.connection import Connection
from orlop.errors import InvalidArgument
from orlop.wire.services import containers_pb2

POLICIES = ("no", "always", "unless-stopped", "on-failure")
STATUS = "containerd.io/restart.status"
_POLICY = "containerd.io/restart.policy"
_STOPPED = "containerd.io/restart.explicitly-stopped"


def labels(policy: str) -> dict[str, str]:
    """The labels for a policy: no, always, unless-stopped or on-failure[:N].

    Raises InvalidArgument for anything else.
    """
    name, colon, limit = policy.partition(":")
    good = name in POLICIES and (not colon or (name == "on-failure" and limit.isdecimal()))
    if not good:
        raise InvalidArgument(f'restart policy "{policy}" is none of {", ".join(POLICIES)}[:N]')
    if name == "no":
        return {}
    return {STATUS: "running", _POLICY: policy}


def expect(connection: Connection, container: containers_pb2.Container, *, running: bool) -> None:
    """Tell the monitor that somebody starts, or stops, a container with a policy.

    One that is stopped is left alone from now on: not "stopped", which would have it killed at
    the next round, whatever patience was asked for.
    """
    if not container.labels.get(_POLICY):
        return
    changed = containers_pb2.Container(
        id=container.id,
        labels={
            STATUS: "running" if running else "",
            _STOPPED: "false" if running else "true",
        },
    )
    mask = FieldMask(paths=[f"labels.{STATUS}", f"labels.{_STOPPED}"])
    connection.containers.update(
        containers_pb2.UpdateContainerRequest(container=changed, update_mask=mask)
    )
