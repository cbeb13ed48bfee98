"""`--filter` of lists of containers, with Docker's keys: those of one key are alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orlop.client import names
from orlop.client.states import State
from orlop.errors import InvalidArgument
from orlop.wire.services import containers_pb2

KEYS = ("id", "name", "label", "ancestor", "status", "exited", "health")


class Filters(NamedTuple):
    """What a container must be; empty takes every one."""

    wanted: dict[str, list[str]]

    @property
    def about_state(self) -> bool:
        """Whether containers are meant that do not run, as well."""
        return bool({"status", "exited"} & set(self.wanted))

    @property
    def about_health(self) -> bool:
        """Whether it counts what healthchecks say."""
        return "health" in self.wanted

    def match(self, record: containers_pb2.Container, state: State, well: str = "") -> bool:
        """`well` is what healthchecks say, "" without any."""
        return all(
            (all if key == "label" else any)(
                _is(key, value, record, state, well) for value in values
            )
            for key, values in self.wanted.items()
        )


def parse(texts: Sequence[str]) -> Filters:
    """Filters from `key=value`; InvalidArgument for a key that is not known."""
    wanted: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in KEYS or (key == "exited" and not value.isdecimal()):
            raise InvalidArgument(f'filter "{text}" is not KEY=VALUE with one of {", ".join(KEYS)}')
        wanted.setdefault(key, []).append(value)
    return Filters(wanted)


def _is(key: str, value: str, record: containers_pb2.Container, state: State, well: str) -> bool:
    match key:
        case "id":
            return record.id.startswith(value)
        case "name":
            return value.lstrip("/") in names.of(record)
        case "label":
            name, equals, wanted = value.partition("=")
            return name in record.labels and (not equals or record.labels[name] == wanted)
        case "ancestor":
            from orlop.oci import reference

            return record.image in (value, str(reference.normalize(value)))
        case "status":
            return state.status == value
        case "health":
            return value == (well or "none")
    return state.status == "exited" and state.exit_code == int(value)
