"""A gRPC channel to one server that is watched: whoever holds it learns when the server is gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping

import grpc

from orlop.rpc.grpc.client import GrpcCall, GrpcChannel


class WatchedChannel:
    """A connection to the Unix socket `path`, as `TtrpcChannel` is one; thread-safe.

    `on_close` is called once, by a thread of grpcio's, when the peer has gone or the channel is
    closed; pending calls then fail with Unavailable. OSError when nobody answers there.
    """

    namespace_header = GrpcChannel.namespace_header

    def __init__(self, path: str, on_close: Callable[[], None], timeout: float) -> None:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(timeout)
            probe.connect(path)
        self._on_close = on_close
        self._lock = threading.Lock()
        self._was_ready = False
        self._lost = False
        self._channel = GrpcChannel(path)
        self._channel.watch(self._changed)

    @property
    def lost(self) -> bool:
        """Whether no call can succeed any more; `on_close` has been or will be called."""
        return self._lost

    def begin(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> GrpcCall:
        """Send a call whose answer is wanted later; Unavailable when the connection is lost."""
        return self._channel.begin(service, method, request, metadata=metadata, timeout=timeout)

    def close(self) -> None:
        self._channel.close()
        self._end()

    def _changed(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self._was_ready = True
        elif self._was_ready or state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            # grpcio would connect again, to whoever listens there then.
            self._end()

    def _end(self) -> None:
        with self._lock:
            if self._lost:
                return
            self._lost = True
        self._on_close()
