"""CNI: networks by chains of plugins, as https://www.cni.dev/docs/spec/ has them; a plain library.

`Configurations` are the networks that files describe, `Plugins` the programs, `Results` what is
remembered of attachments on disk, and `Cni` does to a network what the spec's commands say.
"""

from orlop.network.cni.configurations import Configurations
from orlop.network.cni.model import Attachment, NetworkConfig, PluginConfig
from orlop.network.cni.plugins import Plugins
from orlop.network.cni.results import Results
from orlop.network.cni.runner import Cni

__all__ = [
    "Attachment",
    "Cni",
    "Configurations",
    "NetworkConfig",
    "PluginConfig",
    "Plugins",
    "Results",
]
