"""A gRPC client channel: for shims that speak gRPC, for proxies to other daemons, and for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from orlop.errors import Cancelled, DeadlineExceeded, OrlopError, Unavailable, from_code
from orlop.rpc.context import NAMESPACE_HEADER
from orlop.rpc.grpc.messages import MESSAGE_MAX


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
        pairs = tuple(metadata.items())
        try:
            call = self._channel.unary_unary(f"/{service}/{method}")
            answer: bytes = call(request, timeout=timeout, metadata=pairs)
        except (grpc.RpcError, ValueError) as error:
            raise _error(error) from None
        return answer

    def begin(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> GrpcCall:
        """Send a call whose answer is wanted later."""
        call = self._channel.unary_unary(f"/{service}/{method}")
        try:
            return GrpcCall(call.future(request, timeout=timeout, metadata=tuple(metadata.items())))
        except ValueError as error:
            raise _error(error) from None

    def watch(self, changed: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Connect, and tell of each change in how the connection is."""
        self._channel.subscribe(changed, try_to_connect=True)

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
        path, pairs, outgoing = f"/{service}/{method}", tuple(metadata.items()), iter(requests)
        try:
            if client_streaming:
                streaming = self._channel.stream_stream(path)
                return GrpcStream(streaming(outgoing, timeout=timeout, metadata=pairs))
            call = self._channel.unary_stream(path)
            return GrpcStream(call(next(outgoing), timeout=timeout, metadata=pairs))
        except ValueError as error:
            raise _error(error) from None

    def close(self) -> None:
        self._channel.close()


class GrpcCall:
    """A call on its way."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def result(self, timeout: float | None = None) -> bytes:
        """The answer; DeadlineExceeded after `timeout` seconds, and what the peer answers."""
        try:
            answer: bytes = self._call.result(timeout)
        except grpc.FutureTimeoutError:
            self._call.cancel()
            raise DeadlineExceeded from None
        except grpc.FutureCancelledError:
            raise Cancelled from None
        except grpc.RpcError as error:
            raise _error(error) from None
        return answer

    def cancel(self) -> None:
        """End it, from any thread; who waits for its answer gets Cancelled."""
        self._call.cancel()


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
    if isinstance(error, ValueError):  # how grpcio says that the channel is closed
        return Unavailable(str(error))
    return from_code(error.code().value[0], error.details() or "")
