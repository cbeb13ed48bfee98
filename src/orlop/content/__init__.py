"""The content store: blobs by digest, and resumable ingests that become blobs.

A blob's bytes are stored once and are visible in each namespace that has a record of them. A blob
is never visible unverified.
"""

from orlop.content.model import Info, Locked, Status
from orlop.content.reader import BlobReader
from orlop.content.store import ContentStore
from orlop.content.writer import ContentWriter

__all__ = ["BlobReader", "ContentStore", "ContentWriter", "Info", "Locked", "Status"]
