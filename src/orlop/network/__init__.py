"""Networks: what the kernel has of them, address pools, and the networks of containers.

`Kernel` does what `operations` describe, in any network namespace, whole or not at all, by a
worker process (`worker`, with pyroute2) that it starts when first asked; `PinnedNamespaces` are
those with names. All of this is a plain library, for which only a fork server is needed.
"""

from orlop.network.kernel import Kernel
from orlop.network.namespaces import PinnedNamespaces, of_process

__all__ = ["Kernel", "PinnedNamespaces", "of_process"]
