"""Sandboxes: records of groups of containers that share a shim and what it gives them.

Who runs a sandbox is named by its `sandboxer`; the record says nothing of a running one.
"""

from orlop.sandboxes.model import Sandbox
from orlop.sandboxes.store import SandboxStore

__all__ = ["Sandbox", "SandboxStore"]
