"""What a container uses, in a few figures: of its cgroup's statistics, and of its network.

`orlop stats`, `orlop top` and the status page show the same ones, so they are made in one place.
"""

from orlop.figures.cgroups import Figures, of_message, of_type
from orlop.figures.network import NO_TRAFFIC, Traffic, network_of, of_network

__all__ = [
    "NO_TRAFFIC",
    "Figures",
    "Traffic",
    "network_of",
    "of_message",
    "of_network",
    "of_type",
]
