"""Containers that start again when they end, as their labels ask (containerd's restart monitor).

`rules` reads the labels, `Reviver` starts a container's task from its record, and `Monitor` decides
when.
"""

from orlop.restart.monitor import Monitor
from orlop.restart.reviver import Reviver
from orlop.restart.rules import POLICIES

__all__ = ["POLICIES", "Monitor", "Reviver"]
