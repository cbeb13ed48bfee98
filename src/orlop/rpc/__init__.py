"""Transports: one service table, served on gRPC and on ttrpc, and clients for both.

A service is a class with one method per RPC, named in snake case, taking the request message (or an
iterator of them) and a `CallContext`, and returning the response (or an iterator of them). The
protobuf service descriptor tells the names, types and streaming, so one adapter per transport
serves every service, and one makes a client.

`orlop.rpc.ttrpc` must stay importable without grpc: shims and the command line live on it.
"""

from orlop.rpc.context import CallContext
from orlop.rpc.table import Method, Service, ServiceTable, snake_case

__all__ = ["CallContext", "Method", "Service", "ServiceTable", "snake_case"]
