"""Images: names that point at a manifest or index in the content store."""

from orlop.images.model import Image
from orlop.images.store import ImageStore

__all__ = ["Image", "ImageStore"]
