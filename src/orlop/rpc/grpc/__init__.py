"""gRPC over Unix sockets: our own server (decision 0006), grpcio's client."""
