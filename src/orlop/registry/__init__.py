"""The OCI distribution protocol, client side: resolve a reference, fetch manifests and blobs.

Usable as a plain library; it knows nothing of stores or of the daemon.
"""

from orlop.registry.auth import Credentials
from orlop.registry.client import BlobStream, RegistryClient

__all__ = ["BlobStream", "Credentials", "RegistryClient"]
