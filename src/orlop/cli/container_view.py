"""A container as `orlop inspect` shows it: what Docker's users look for by Docker's names, and then
the record as it is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from orlop.client import Connection, containers, health, names, networks, ports, states
from orlop.client.health import ContainerHealth
from orlop.client.states import State
from orlop.rpc.convert import nanoseconds
from orlop.wire.services import containers_pb2

_NEVER = "0001-01-01T00:00:00Z"


def view(connection: Connection, record: containers_pb2.Container) -> dict[str, Any]:
    task = states.task_of(connection, record.id)
    state = states.of(record, task)
    spec = containers.spec_of(record)
    shown: dict[str, Any] = {
        "Id": record.id,
        "Name": names.of(record),
        "Created": _time(nanoseconds(record.created_at) / 1e9),
        "State": _state(state, health.of(connection, record.id)),
        "Config": _config(record, spec),
        "Mounts": [_mount(each) for each in spec.get("mounts") or () if _is_bind(each)],
    }
    if networks.LABEL in record.labels:
        shown["NetworkSettings"] = _network(connection, record)
    shown |= _record(record)
    shown["spec"] = spec
    shown["task"] = task and MessageToDict(task, preserving_proto_field_name=True)
    return shown


def _network(connection: Connection, record: containers_pb2.Container) -> dict[str, Any]:
    published: dict[str, list[dict[str, str]]] = {}
    for each in ports.published(connection, record):
        if each.outside:
            where = {"HostIp": each.host, "HostPort": str(each.outside)}
            published.setdefault(each.name, []).append(where)
    found = networks.inspect(connection, container=record.id).endpoints
    places = {
        each.network: {
            "NetworkID": each.network_id,
            "IPAddress": next((one for one in each.addresses if ":" not in one), ""),
            "GlobalIPv6Address": next((one for one in each.addresses if ":" in one), ""),
            "MacAddress": each.mac,
            "Aliases": list(each.aliases),
        }
        for each in found
    }
    first = next(iter(places.values()), {"IPAddress": "", "MacAddress": ""})
    return {
        "IPAddress": first["IPAddress"],
        "MacAddress": first["MacAddress"],
        "Ports": published,
        "Networks": places,
    }


def _record(record: containers_pb2.Container) -> dict[str, Any]:
    kept = containers_pb2.Container()
    kept.CopyFrom(record)
    # Any values of types that only their writers know cannot be shown as messages.
    for field in ("spec", "extensions"):
        kept.ClearField(field)
    kept.runtime.ClearField("options")
    shown: dict[str, Any] = MessageToDict(kept, preserving_proto_field_name=True)
    return {**shown, "extensions": sorted(record.extensions)}


def _state(state: State, found: ContainerHealth | None) -> dict[str, Any]:
    shown = {
        "Status": state.status,
        "Running": state.alive,
        "Paused": state.status == "paused",
        "OOMKilled": state.oom_killed,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "StartedAt": _time(state.started),
        "FinishedAt": _time(state.finished),
    }
    return shown if found is None else {**shown, "Health": _health(found)}


def _health(found: ContainerHealth) -> dict[str, Any]:
    return {
        "Status": found.status,
        "FailingStreak": found.failing_streak,
        "Log": [
            {
                "Start": _time(nanoseconds(each.start) / 1e9),
                "End": _time(nanoseconds(each.end) / 1e9),
                "ExitCode": each.exit_code,
                "Output": each.output,
            }
            for each in found.results
        ],
    }


def _config(record: containers_pb2.Container, spec: dict[str, Any]) -> dict[str, Any]:
    process = spec.get("process") or {}
    user = process.get("user") or {}
    return {
        "Hostname": spec.get("hostname", ""),
        "User": f"{user.get('uid', 0)}:{user.get('gid', 0)}",
        "Tty": bool(process.get("terminal")),
        "Env": process.get("env") or [],
        "Cmd": process.get("args") or [],
        "WorkingDir": process.get("cwd", ""),
        "Image": record.image,
        "Labels": dict(record.labels),
        "StopSignal": record.labels.get(containers.STOP_SIGNAL_LABEL, "SIGTERM"),
    }


def _is_bind(mount: dict[str, Any]) -> bool:
    return not {"bind", "rbind"}.isdisjoint(mount.get("options") or ())


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": mount.get("source", ""),
        "Destination": mount.get("destination", ""),
        "RW": "ro" not in (mount.get("options") or ()),
    }


def _time(seconds: float) -> str:
    if not seconds:
        return _NEVER
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
