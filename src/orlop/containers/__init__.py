"""Containers: records of what a container is to be, with no state of a running one.

A record names its image, runtime and root filesystem's snapshot, and carries its OCI spec as the
bytes that the client sent. Running it is the `runtime` room's work.
"""

from orlop.containers.model import Container
from orlop.containers.store import ContainerStore

__all__ = ["Container", "ContainerStore"]
