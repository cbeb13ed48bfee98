"""Introspection: what this daemon is, and which parts of it work.

Clients of this API find features by looking for plugins and at what they export, so each part of
orlop shows under the plugin name that they look for.
"""

from orlop.introspection.catalogue import Catalogue
from orlop.introspection.model import Plugin

__all__ = ["Catalogue", "Plugin"]
