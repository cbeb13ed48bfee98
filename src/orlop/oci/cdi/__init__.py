"""Devices by the Container Device Interface (CDI): vendors name them, files describe them.

`names` reads what users write, `files` finds and checks the descriptions, `inject` puts devices
into a runtime spec. See the CDI specification, SPEC.md, of which versions up to 1.0 are understood.
"""

from orlop.oci.cdi.inject import inject
from orlop.oci.cdi.names import DEFAULT_FOLDERS, gpus, is_device, of_annotations

__all__ = ["DEFAULT_FOLDERS", "gpus", "inject", "is_device", "of_annotations"]
