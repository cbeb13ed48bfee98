"""A small service of many manners, and servers and channels for it on either transport."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orlop.errors import NotFound, OrlopError
from orlop.rpc import CallContext, Service, ServiceTable
from orlop.rpc.calls import Calls
from orlop.rpc.client import Client
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.reactor import Reactor
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.rpc.ttrpc.server import TtrpcServer
from orlop.wire.services import content_pb2

CONTENT = content_pb2.DESCRIPTOR.services_by_name["Content"]


class Guinea(Service):
    """A content service that answers with what it was asked."""

    DESCRIPTOR = CONTENT

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.ended = threading.Event()
        self.write_error: OrlopError | None = None
        self.write_outcome: list[Exception | int] = []
        self.remaining: list[float | None] = []

    def info(self, request: Any, ctx: CallContext) -> Any:
        self.remaining.append(ctx.remaining())
        info = content_pb2.Info(digest=request.digest, labels={"ns": ctx.namespace, "l": ctx.lease})
        return content_pb2.InfoResponse(info=info)

    def update(self, request: Any, ctx: CallContext) -> Any:
        raise RuntimeError(request.info.digest or "a defect")

    def list(self, request: Any, ctx: CallContext) -> Iterator[Any]:
        for number in range(3):
            yield content_pb2.ListContentResponse(info=[content_pb2.Info(size=number)])
        if request.filters:
            raise NotFound('filter "x"')

    def delete(self, request: Any, ctx: CallContext) -> Any:
        raise NotFound(f'content "{request.digest}"')

    def read(self, request: Any, ctx: CallContext) -> Iterator[Any]:
        """One message of `size` bytes, or with `offset` so many of them."""
        for _ in range(request.offset or 1):
            yield content_pb2.ReadContentResponse(data=b"x" * request.size)

    def status(self, request: Any, ctx: CallContext) -> Any:
        ctx.on_cancel(self.ended.set)
        self.entered.set()
        assert self.ended.wait(20)
        ctx.check()
        return content_pb2.StatusResponse()

    def list_statuses(self, request: Any, ctx: CallContext) -> Any:
        return content_pb2.ListStatusesResponse()

    def write(self, requests: Iterator[Any], ctx: CallContext) -> Iterator[Any]:
        total = 0
        self.entered.set()
        if self.write_error is not None:
            raise self.write_error
        try:
            for request in requests:
                total += len(request.data)
                yield content_pb2.WriteContentResponse(offset=total)
            self.write_outcome.append(total)
        except Exception as error:
            self.write_outcome.append(error)
            raise
        finally:
            self.ended.set()

    def abort(self, request: Any, ctx: CallContext) -> Any:
        ctx.require_namespace()


class Peer:
    """A server on one transport, and how to reach it."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path, self.guinea = kind, path, Guinea()
        self.reactor = Reactor()
        self.calls = Calls()
        self.table = ServiceTable(self.guinea)
        self.server: Any
        if kind == "grpc":
            self.server = GrpcServer(self.table, self.reactor, calls=self.calls)
        else:
            self.server = TtrpcServer(self.table, self.reactor, calls=self.calls)
        self.server.add_unix(path)
        self.server.start()
        self.channels: list[Any] = []

    def serve(self, **methods: Callable[[Any, CallContext], Any]) -> None:
        """Have some methods of the guinea do something else."""
        for name, method in methods.items():
            setattr(self.guinea, name, method)
        self.table.add(self.guinea)

    def channel(self) -> Any:
        made: Any
        if self.kind == "grpc":
            made = GrpcChannel(str(self.path))
        elif self.kind == "ttrpc":
            made = TtrpcChannel.connect(str(self.path))
        else:
            made = TtrpcChannel.connect(str(self.path), self.reactor)
        self.channels.append(made)
        return made

    def client(self, **kwargs: str) -> Any:
        return Client(CONTENT, self.channel(), **kwargs)

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
        self.guinea.ended.set()
        self.server.stop()
        self.reactor.close()
