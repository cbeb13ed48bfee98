"""What is done to a task for its network: before it is made, once it has a process, or undone."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from orlop.errors import FailedPrecondition, OrlopError
from orlop.network import wishes
from orlop.network.cni_records import Resolver, is_cni
from orlop.network.connections import Connections, PidOf
from orlop.network.model import Endpoint
from orlop.network.namespaces import of_process
from orlop.network.own_files import Given, OwnFiles
from orlop.network.wishes import CONNECTABLE, SHARED, Wishes

_log = logging.getLogger(__name__)


class Container(Protocol):
    """What is read of a container's record."""

    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class Planner:
    """Makes the plans of containers whose labels ask for a network; of no others."""

    def __init__(self, connections: Connections, own: OwnFiles, *, unusable: str = "") -> None:
        self._connections = connections
        self._own = own
        self._unusable = unusable

    def plan(
        self, namespace: str, container: Container, spec: bytes, bundle: Path, pid_of: PidOf
    ) -> Plan | None:
        """The plan for a task in `bundle`, whose places in networks are reserved; None for none.

        Raises FailedPrecondition where no networks are to be had, and what refuses a wish.
        """
        wanted = wishes.of(container.id, container.labels)
        if wanted is None:
            return None
        found: list[Endpoint] = []
        if wanted.mode == "networks":
            if self._unusable:
                raise FailedPrecondition(f"networks cannot be used: {self._unusable}")
            mapped = wishes.ports(container.id, container.labels)
            resolver = Resolver(wanted.dns, wanted.dns_search, wanted.dns_options)
            found = self._connections.reserve(
                namespace, container.id, wanted.networks, mapped, resolver
            )
        plan = Plan(self._connections, self._own, namespace, container.id, wanted, found)
        try:
            plan.complete(spec, bundle, pid_of)
        except BaseException:
            plan.abandon()
            raise
        return plan

    def connects(self, namespace: str, container: str) -> bool:
        """Whether a container is in networks: what is restored of it is connected anew."""
        return bool(self._connections.endpoints(namespace, container))

    def release(self, namespace: str, container: str) -> None:
        """The task of a container is gone, whoever noticed first."""
        try:
            self._connections.release(namespace, container)
        except OrlopError as error:
            _log.warning("namespace=%s container=%s network: %s", namespace, container, error)


class Plan:
    """One task's: `spec` is what it is to be made with, `files` what goes beside it."""

    def __init__(
        self,
        connections: Connections,
        own: OwnFiles,
        namespace: str,
        container: str,
        wanted: Wishes,
        endpoints: list[Endpoint],
    ) -> None:
        self._connections = connections
        self._own = own
        self._namespace = namespace
        self._container = container
        self._wishes = wanted
        self._endpoints = endpoints
        self._hostname = ""
        self._others: Path | None = None
        self.spec = b""
        self.files: dict[str, str] = {}

    def complete(self, spec: bytes, bundle: Path, pid_of: PidOf) -> None:
        config: dict[str, Any] = msgspec.json.decode(spec)
        if self._wishes.mode.startswith(SHARED):
            other = self._wishes.mode.removeprefix(SHARED)
            self._share(config, other, pid_of)
            self._others = bundle.with_name(other)
        self._hostname = config.get("hostname") or ""
        self.files = self._own.texts(
            self._namespace, self._container, self._hostname, self._wishes, self._endpoints
        )
        mounts = config.setdefault("mounts", [])
        taken = {each.get("destination") for each in mounts}
        mounts += [
            {
                "destination": f"/etc/{name}",
                "type": "bind",
                "source": str(bundle / name),
                "options": ["rbind", "rprivate"],
            }
            for name in self.files
            if f"/etc/{name}" not in taken
        ]
        self.spec = msgspec.json.encode(config)

    def _share(self, config: dict[str, Any], other: str, pid_of: PidOf) -> None:
        pid = pid_of(self._namespace, other)
        if not pid:
            raise FailedPrecondition(f'container "{other}", whose network is shared, does not run')
        for each in config["linux"]["namespaces"]:
            if each["type"] == "network":
                each["path"] = of_process(pid)

    def write(self, bundle: Path) -> None:
        """Write the files into the bundle; those of a shared network are the other's own."""
        for name, text in self.files.items():
            path = bundle / name
            if self._others is not None and name in self._wishes.unsaid():
                with suppress(FileNotFoundError):  # it has none, as one that another client runs
                    os.link(self._others / name, path)
                    continue
            path.write_text(text)
            path.chmod(0o644)
        if self._wishes.mode in CONNECTABLE:
            self._own.remember(bundle, Given(self._hostname, self._wishes, self.files))

    def connect(self, pid: int) -> None:
        """The task has a process, not yet started: plug its network in."""
        if self._endpoints and pid:
            self._connections.connect(self._namespace, self._container, pid)
            if any(is_cni(each.network) for each in self._endpoints):
                self._own.follow(self._namespace, self._container)  # addresses are chosen by now

    def restored(self, pid: int) -> None:
        """The task goes on where its checkpoint was made, in an empty network namespace."""
        if self._endpoints:
            self._connections.wake_loopback(pid)
            self.connect(pid)

    def abandon(self) -> None:
        """The task has not come to be."""
        if self._endpoints:
            self._connections.release(self._namespace, self._container)
