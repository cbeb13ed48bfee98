"""The Python SDK: a daemon as one namespace of it sees it.

`Connection` has a client for every service; the other modules are the jobs that take several
calls: images (read a config), pull, push, archive (import, export), transfers (tag), auth (answers
to questions for credentials), login (are they good?), containers (create from an image, remove),
stdio (fifos), log files and what is in them.
It speaks ttrpc, which starts fast: no grpc is loaded.
"""

from orlop.client.connection import DEFAULT_ADDRESS, DEFAULT_NAMESPACE, Connection

__all__ = ["DEFAULT_ADDRESS", "DEFAULT_NAMESPACE", "Connection"]
