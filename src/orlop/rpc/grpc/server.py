"""A gRPC server of our own: HTTP/2 without TLS, on Unix sockets, one hop from the handler.

grpcio's server takes three times the processor time for a call, most of it for handing the call
from thread to thread: see docs/decisions/0006-own-grpc-server.md.
"""

from __future__ import annotations

from orlop.rpc.calls import Calls
from orlop.rpc.grpc.connection import Connection
from orlop.rpc.reactor import Reactor
from orlop.rpc.serving import SocketServer
from orlop.rpc.table import ServiceTable


class GrpcServer(SocketServer):
    """Serves a table on Unix sockets."""

    def __init__(
        self, table: ServiceTable, reactor: Reactor, *, calls: Calls | None = None
    ) -> None:
        super().__init__("grpc", table, reactor, Connection, same_user=False, calls=calls)
