"""Containers that come into networks, or leave them, for good: by their label, at each start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from orlop import typed
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
)
from orlop.network import wishes
from orlop.network.connections import Connections, PidOf
from orlop.network.dns.director import Record, RecordOf
from orlop.network.model import Endpoint, Wish
from orlop.network.wishes import CONNECTABLE, LABEL
from orlop.turns import Turns

SetLabel = Callable[[str, str, str, str], object]
"""Sets a label of a container: namespace, id, key, value."""


class _Namespace(msgspec.Struct):
    type: str
    path: str = ""


class _Linux(msgspec.Struct):
    namespaces: tuple[_Namespace, ...] | None = None


class _Spec(msgspec.Struct):
    linux: _Linux | None = None


class Lasting:
    """Does what `Connections` does, and writes it down, as one thing. Thread-safe.

    Each change is one of what the label says then: of several at once none is lost. `unusable` is
    why this daemon can connect nobody.
    """

    def __init__(
        self,
        connections: Connections,
        record_of: RecordOf,
        set_label: SetLabel,
        pid_of: PidOf,
        *,
        unusable: str = "",
    ) -> None:
        self._connections = connections
        self._record_of = record_of
        self._set_label = set_label
        self._pid_of = pid_of
        self._unusable = unusable
        self._turns = Turns()

    def connect(
        self, namespace: str, container: str, wish: Wish, *, inherit: bool
    ) -> Endpoint | None:
        """Put a container into one more network: now if it runs, and whenever it is started.

        With `inherit` its rates are those of its first network. None for one that does not run.
        Raises InvalidArgument for one that shares another's network, AlreadyExists, NotFound.
        """
        if self._unusable:
            raise FailedPrecondition(f"networks cannot be used: {self._unusable}")
        with self._turns.take((namespace, container)):
            record = self._record_of(namespace, container)
            said = wishes.of(container, record.labels) or wishes.Wishes("none")
            if said.mode not in CONNECTABLE or _shares(container, record):
                raise InvalidArgument(
                    f'container "{container}" has no network namespace of its own'
                )
            network = self._connections.wanted(namespace, wish.network)
            if any(each.network in (network.name, network.id) for each in said.networks):
                raise AlreadyExists(f'container "{container}" in network "{network.name}"')
            rates = said.networks[0].rates if inherit and said.networks else wish.rates
            wish = msgspec.structs.replace(wish, network=network.name, rates=rates)
            wish.check()
            wish.check_rates(network)
            self._refuse_at_its_start(namespace, container)
            pid = self._pid_of(namespace, container)
            made = self._connections.attach(namespace, container, wish, pid) if pid else None
            try:
                label = _decoded(record)
                places = [*(label.get("networks") or ()), _place(wish)]
                self._write(namespace, container, {**label, "mode": "networks"}, places)
            except BaseException:
                if made is not None:
                    with suppress(OrlopError):
                        self._connections.detach(namespace, container, made.network)
                raise
        return made

    def disconnect(self, namespace: str, container: str, name: str) -> None:
        """Take a container out of a network, also for its next starts.

        NotFound if it is not in there; a network that is no more can be left, too.
        """
        with self._turns.take((namespace, container)):
            self._refuse_at_its_start(namespace, container)
            record = self._record_of(namespace, container)
            wishes.of(container, record.labels)  # which is to be a label of ours, if it is there
            label = _decoded(record)
            names = {name}
            with suppress(NotFound):
                network = self._connections.named(namespace, name)
                names |= {network.name, network.id}
            places = label.get("networks") or []
            rest = [each for each in places if each["network"] not in names]
            try:
                self._connections.detach(namespace, container, name)
            except NotFound:
                if len(rest) == len(places):
                    raise
            if len(rest) < len(places):
                self._write(namespace, container, label, rest)

    def _refuse_at_its_start(self, namespace: str, container: str) -> None:
        """What its plan has read of the label is what it will be in."""
        if self._connections.pids.is_being_made((namespace, container)):
            raise Unavailable(f'container "{container}" is just being started: try again')

    def _write(
        self, namespace: str, container: str, label: dict[str, Any], places: list[dict[str, Any]]
    ) -> None:
        text = msgspec.json.encode({**label, "networks": places}).decode()
        self._set_label(namespace, container, LABEL, text)


def _decoded(record: Record) -> dict[str, Any]:
    """The label as it is, also what this version does not know of."""
    found: dict[str, Any] = msgspec.json.decode(record.labels.get(LABEL) or "{}")
    return found


def _place(wish: Wish) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(wish)
    return {key: value for key, value in found.items() if value}


def _shares(container: str, record: Record) -> bool:
    """Whether its network is the host's, or one that somebody else has made."""
    try:
        spec = typed.decode(record.spec.value if record.spec is not None else b"{}", _Spec)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f'spec of container "{container}" does not parse: {error}') from None
    kinds = (spec.linux.namespaces if spec.linux else None) or ()
    return not any(each.type == "network" and not each.path for each in kinds)
