"""A gRPC client channel: for proxies to other daemons, and for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from orlop.errors import OrlopError, from_code
from orlop.rpc.context import NAMESPACE_HEADER
from orlop.rpc.grpc.server import MESSAGE_MAX


class GrpcChannel:
    """A channel to the Unix socket at `address`; see `orlop.rpc.client.Channel`."""

    namespace_header = NAMESPACE_HEADER

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(
            f"unix:{address}",
            options=(
                ("grpc.max_receive_message_length", MESSAGE_MAX),
                ("grpc.max_send_message_length", MESSAGE_MAX),
            ),
        )

    def unary(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> bytes:
        call = self._channel.unary_unary(f"/{service}/{method}")
        try:
            answer: bytes = call(request, timeout=timeout, metadata=tuple(metadata.items()))
        except grpc.RpcError as error:
            raise _error(error) from None
        return answer

    def stream(
        self,
        service: str,
        method: str,
        requests: Iterable[bytes],
        *,
        client_streaming: bool,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> GrpcStream:
        path, pairs = f"/{service}/{method}", tuple(metadata.items())
        if client_streaming:
            call = self._channel.stream_stream(path)
            return GrpcStream(call(iter(requests), timeout=timeout, metadata=pairs))
        request = next(iter(requests))
        return GrpcStream(
            self._channel.unary_stream(path)(request, timeout=timeout, metadata=pairs)
        )

    def close(self) -> None:
        self._channel.close()


class GrpcStream:
    """The responses of a streaming call; closing it cancels the call."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> GrpcStream:
        return self

    def __next__(self) -> bytes:
        try:
            answer: bytes = next(self._call)
        except grpc.RpcError as error:
            raise _error(error) from None
        return answer

    def close(self) -> None:
        self._call.cancel()


def _error(error: Any) -> OrlopError:
    return from_code(error.code().value[0], error.details() or "")
