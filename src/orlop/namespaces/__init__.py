"""Namespaces: the worlds that all other records live in, each with labels of its own.

The first write to a namespace creates it, so creating one by hand is only needed to label it.
"""

from orlop.namespaces.model import Namespace
from orlop.namespaces.store import NamespaceStore

__all__ = ["Namespace", "NamespaceStore"]
