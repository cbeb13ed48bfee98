"""gRPC over Unix sockets, by grpcio's synchronous server."""
