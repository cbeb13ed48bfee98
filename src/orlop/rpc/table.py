"""The service table: which methods this daemon serves, whatever the transport."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """The Python name of an RPC: `ListPids` is `list_pids`, `CloseIO` is `close_io`."""
    return _WORD_START.sub("_", name).lower()


class Service:
    """Base of every service: names the protobuf service that the class implements."""

    DESCRIPTOR: ClassVar[ServiceDescriptor]


class Method(NamedTuple):
    """One RPC: its names, message classes, streaming and the Python callable that serves it."""

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    handler: Callable[..., Any]

    @property
    def path(self) -> str:
        """The gRPC path, `/package.Service/Method`."""
        return f"/{self.service}/{self.name}"


def _method(service: Service, rpc: MethodDescriptor) -> Method:
    name = snake_case(rpc.name)
    handler = getattr(service, name, None)
    if handler is None:
        raise TypeError(f"{type(service).__name__} has no method {name} for {rpc.full_name}")
    return Method(
        service=rpc.containing_service.full_name,
        name=rpc.name,
        request=GetMessageClass(rpc.input_type),
        response=GetMessageClass(rpc.output_type),
        client_streaming=rpc.client_streaming,
        server_streaming=rpc.server_streaming,
        handler=handler,
    )


class ServiceTable:
    """The methods of a set of services, found by service and method name.

    Raises TypeError when a service lacks a method of its descriptor: a table is complete.
    """

    def __init__(self, *services: Service) -> None:
        self._services: dict[str, dict[str, Method]] = {}
        for service in services:
            self.add(service)

    def add(self, service: Service) -> None:
        methods = (_method(service, rpc) for rpc in service.DESCRIPTOR.methods)
        self._services[service.DESCRIPTOR.full_name] = {m.name: m for m in methods}

    def find(self, service: str, method: str) -> Method | None:
        return self._services.get(service, {}).get(method)

    def services(self) -> Iterator[tuple[str, dict[str, Method]]]:
        yield from self._services.items()
