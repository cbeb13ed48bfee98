"""A ttrpc server."""

from __future__ import annotations

from orlop.rpc.calls import Calls
from orlop.rpc.reactor import Reactor
from orlop.rpc.serving import SocketServer
from orlop.rpc.table import ServiceTable
from orlop.rpc.ttrpc.connection import Connection


class TtrpcServer(SocketServer):
    """Serves a table on Unix sockets; `same_user` refuses peers of another user."""

    def __init__(
        self,
        table: ServiceTable,
        reactor: Reactor,
        *,
        same_user: bool = True,
        calls: Calls | None = None,
    ) -> None:
        super().__init__("ttrpc", table, reactor, Connection, same_user=same_user, calls=calls)
