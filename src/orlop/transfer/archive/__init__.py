"""Images in archives: OCI layouts (image spec, image-layout.md) and what `docker save` writes.

`Importer` reads an archive once, from beginning to end: blobs go into the content store as they
come. `Exporter` writes one, whose bytes depend on nothing but the images in it.
"""

from orlop.transfer.archive.exporter import Export, Exporter
from orlop.transfer.archive.importer import Import, Importer
from orlop.transfer.archive.names import Naming, Prefix

__all__ = ["Export", "Exporter", "Import", "Importer", "Naming", "Prefix"]
