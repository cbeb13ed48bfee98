"""A client for any service, made from its protobuf descriptor, over either transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from orlop.rpc.context import LEASE_HEADER
from orlop.rpc.table import snake_case


class ByteStream(Protocol):
    """The responses of a streaming call, serialized."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def close(self) -> None: ...


class Channel(Protocol):
    """A connection that makes calls with serialized messages.

    Both raise the `OrlopError` that the peer answers, Unavailable when the connection is lost and
    DeadlineExceeded after `timeout` seconds.
    """

    namespace_header: str

    def unary(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None,
    ) -> bytes: ...

    def stream(
        self,
        service: str,
        method: str,
        requests: Iterable[bytes],
        *,
        client_streaming: bool,
        metadata: Mapping[str, str],
        timeout: float | None,
    ) -> ByteStream: ...


class Responses:
    """The responses of a streaming call: an iterator that can be closed to cancel the call."""

    def __init__(self, stream: ByteStream, parse: Callable[[bytes], Any]) -> None:
        self._stream = stream
        self._parse = parse

    def __iter__(self) -> Responses:
        return self

    def __next__(self) -> Any:
        return self._parse(next(self._stream))

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Responses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Client:
    """Calls a service: each RPC is a method in snake case, `client.get(request, timeout=None)`.

    A streaming RPC takes an iterable of requests where the client streams, and returns `Responses`
    where the server does. `namespace` and `lease` go along with every call.
    """

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        channel: Channel,
        *,
        namespace: str = "",
        lease: str = "",
    ) -> None:
        metadata = {}
        if namespace:
            metadata[channel.namespace_header] = namespace
        if lease:
            metadata[LEASE_HEADER] = lease
        for rpc in descriptor.methods:
            setattr(self, snake_case(rpc.name), _caller(rpc, channel, metadata))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"service has no method {name}")


def _caller(rpc: MethodDescriptor, channel: Channel, metadata: Mapping[str, str]) -> Any:
    service, name = rpc.containing_service.full_name, rpc.name
    parse = GetMessageClass(rpc.output_type).FromString

    def unary(request: Message, timeout: float | None = None) -> Any:
        data = request.SerializeToString()
        return parse(channel.unary(service, name, data, metadata=metadata, timeout=timeout))

    def stream(requests: Any, timeout: float | None = None) -> Any:
        messages = requests if rpc.client_streaming else (requests,)
        answer = channel.stream(
            service,
            name,
            (message.SerializeToString() for message in messages),
            client_streaming=rpc.client_streaming,
            metadata=metadata,
            timeout=timeout,
        )
        if rpc.server_streaming:
            return Responses(answer, parse)
        return parse(next(iter(answer), b""))  # ttrpc cannot tell an empty message from none

    return stream if rpc.client_streaming or rpc.server_streaming else unary
