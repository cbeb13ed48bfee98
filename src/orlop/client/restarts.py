"""Restart policies, as the daemon's restart monitor reads them from a container's labels."""

from __future__ import annotations

from orlop.client.connection import Connection
from orlop.client.labels import change
from orlop.errors import InvalidArgument
from orlop.wire.services import containers_pb2
from orlop.wire.task_types_pb2 import STOPPED, Process

POLICIES = ("no", "always", "unless-stopped", "on-failure")
STATUS = "containerd.io/restart.status"
_POLICY = "containerd.io/restart.policy"
_COUNT = "containerd.io/restart.count"
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
    the next round, whatever patience was asked for. One that is started has all its tries again.
    """
    if not has_policy(container):
        return
    if running:
        change(connection, container.id, {STATUS: "running", _STOPPED: "false", _COUNT: ""})
    else:
        change(connection, container.id, {STATUS: "", _STOPPED: "true"})


def choose(
    connection: Connection, container: containers_pb2.Container, policy: str, task: Process | None
) -> None:
    """Give a container another policy; `task` is its task now.

    It counts from the container's next end on: one that has ended for good is not started by it.
    Raises InvalidArgument for what is no policy.
    """
    wanted = {STATUS: "", _POLICY: "", **labels(policy)}
    if policy == "no" or (task is not None and task.status != STOPPED):
        wanted[_STOPPED] = ""
    elif task is None or not comes_back(container, task.exit_status):
        wanted[STATUS] = ""  # as for one that nobody has started yet
    change(connection, container.id, wanted)


def has_policy(container: containers_pb2.Container) -> bool:
    """Whether the monitor cares for it, or did; one with a status alone is always started again."""
    return any(container.labels.get(each) for each in (_POLICY, STATUS, _STOPPED))


def comes_back(container: containers_pb2.Container, status: int) -> bool:
    """Whether the monitor is going to start a container again that has ended with `status`."""
    labels = container.labels
    if labels.get(STATUS) != "running" or labels.get(_STOPPED) == "true":
        return False
    name, _, limit = labels.get(_POLICY, "always").partition(":")
    if name != "on-failure":
        return name in ("always", "unless-stopped")
    tries = int(labels.get(_COUNT) or "0")
    return status != 0 and (not limit or tries < int(limit))
