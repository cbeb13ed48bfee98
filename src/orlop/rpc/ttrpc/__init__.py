"""ttrpc: protobuf calls over a Unix socket, without HTTP/2.

`protocol` is the framing, sans I/O; `client` and `server` run it with threads; `reactor` is the one
selector thread that reads all of a daemon's ttrpc connections.
"""
