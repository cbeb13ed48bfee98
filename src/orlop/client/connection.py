"""A connection to orlopd, with a client for each of its services."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any

from orlop.errors import Unavailable
from orlop.rpc.client import Client
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.rpc.ttrpc.protocol import ABSURD

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_ADDRESS = "/run/orlop/orlop.sock"
DEFAULT_NAMESPACE = "default"


class Connection:
    """orlopd at the socket `address`, as the namespace `namespace` sees it.

    Each service is an attribute, such as `connection.images.list(request)`. Usable from several
    threads. Raises Unavailable when no daemon answers.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, namespace: str = DEFAULT_NAMESPACE, lease: str = ""
    ) -> None:
        self.address = address
        self.namespace = namespace
        self._lease = lease
        self._owner = True
        self._channel = self._connect()

    def _connect(self) -> TtrpcChannel:
        socket = f"{self.address}.ttrpc"
        try:
            # Lists of all that there is may be long.
            peer = f'orlopd at "{self.address}"'
            return TtrpcChannel.connect(socket, peer=peer, answer_max=ABSURD)
        except OSError as error:
            raise Unavailable(
                f'cannot reach orlopd at "{socket}" ({error.strerror}); is it running, and are you '
                "allowed to use it? --address names another socket"
            ) from error

    def reconnect(self) -> None:
        """Use a new connection from now on, after one that was lost; calls under way fail."""
        before, self._channel = self._channel, self._connect()
        for name, value in list(vars(self).items()):
            if isinstance(value, Client):
                del vars(self)[name]
        before.close()

    @property
    def lease(self) -> str:
        """The lease that holds what calls create, "" for none."""
        return self._lease

    def with_lease(self, lease: str) -> Connection:
        """The same connection, whose calls hold what they create with a lease."""
        other = object.__new__(Connection)
        other.address, other.namespace = self.address, self.namespace
        other._lease, other._channel, other._owner = lease, self._channel, False
        return other

    @property
    def directory(self) -> Path:
        """Where the daemon's sockets are; client fifos live beside them."""
        from pathlib import Path

        return Path(self.address).parent

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._owner:
            self._channel.close()

    def _client(self, module: str, service: str) -> Any:
        # Generated modules are loaded when first used: a command needs two or three of them.
        descriptor = import_module(f"orlop.wire.services.{module}_pb2").DESCRIPTOR
        return Client(
            descriptor.services_by_name[service],
            self._channel,
            namespace=self.namespace,
            lease=self._lease,
        )

    def exports(self, kind: str, id: str) -> Mapping[str, str]:
        """What a plugin of the daemon tells about itself; it is asked once. Empty without it."""
        if (kind, id) not in self._exports:
            from orlop.wire.services.introspection_pb2 import PluginsRequest

            answer = self.introspection.plugins(PluginsRequest(filters=[f"type=={kind},id=={id}"]))
            self._exports[kind, id] = dict(answer.plugins[0].exports) if answer.plugins else {}
        return self._exports[kind, id]

    @cached_property
    def _exports(self) -> dict[tuple[str, str], Mapping[str, str]]:
        return {}

    @cached_property
    def containers(self) -> Any:
        return self._client("containers", "Containers")

    @cached_property
    def content(self) -> Any:
        return self._client("content", "Content")

    @cached_property
    def diff(self) -> Any:
        return self._client("diff", "Diff")

    @cached_property
    def events(self) -> Any:
        return self._client("events", "Events")

    @cached_property
    def health(self) -> Any:
        return self._client("health", "Health")

    @cached_property
    def images(self) -> Any:
        return self._client("images", "Images")

    @cached_property
    def introspection(self) -> Any:
        return self._client("introspection", "Introspection")

    @cached_property
    def leases(self) -> Any:
        return self._client("leases", "Leases")

    @cached_property
    def links(self) -> Any:
        return self._client("links", "Links")

    @cached_property
    def mounts(self) -> Any:
        return self._client("mounts", "Mounts")

    @cached_property
    def namespaces(self) -> Any:
        return self._client("namespaces", "Namespaces")

    @cached_property
    def networks(self) -> Any:
        return self._client("network", "Networks")

    @cached_property
    def netns(self) -> Any:
        return self._client("network", "NetworkNamespaces")

    @cached_property
    def sandboxes(self) -> Any:
        return self._client("sandbox", "Store")

    @cached_property
    def sandbox_controller(self) -> Any:
        return self._client("sandbox", "Controller")

    @cached_property
    def snapshots(self) -> Any:
        return self._client("snapshots", "Snapshots")

    @cached_property
    def store(self) -> Any:
        return self._client("store", "Store")

    @cached_property
    def streaming(self) -> Any:
        return self._client("streaming", "Streaming")

    @cached_property
    def tasks(self) -> Any:
        return self._client("tasks", "Tasks")

    @cached_property
    def transfer(self) -> Any:
        return self._client("transfer", "Transfer")

    @cached_property
    def version(self) -> Any:
        return self._client("version", "Version")
