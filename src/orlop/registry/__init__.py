"""The OCI distribution protocol, client side: resolve, fetch and push.

Usable as a plain library; it knows nothing of stores or of the daemon.
"""

from orlop.registry.auth import Ask, Credentials
from orlop.registry.client import RegistryClient
from orlop.registry.download import Download
from orlop.registry.hosts_toml import find_hosts
from orlop.registry.http import Http
from orlop.registry.sources import Silence
from orlop.registry.upload import Uploads

__all__ = [
    "Ask",
    "Credentials",
    "Download",
    "Http",
    "RegistryClient",
    "Silence",
    "Uploads",
    "find_hosts",
]
