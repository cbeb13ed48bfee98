"""The content store served as an OCI registry, so that other nodes pull from this one.

Images of one containerd namespace are offered by the OCI distribution protocol; with pushes
enabled, images that are pushed here become images of that namespace. Nothing is copied: blobs go
out of the content store's own files, and come in through its ingests.
"""

from orlop.origin.serving import Origin, Settings
from orlop.web import Tls

__all__ = ["Origin", "Settings", "Tls"]
