"""How containers are: checks that run in them as their label asks, and what they found.

`state` says what results mean, `StateFiles` keeps them, `Prober` runs one check through the tasks,
and `Monitor` decides when. Nothing is stopped or started for a container's health, and its record
is not touched.
"""

from orlop.health.files import StateFiles
from orlop.health.monitor import Monitor
from orlop.health.probe import Prober
from orlop.health.service import ContainerHealthService

__all__ = ["ContainerHealthService", "Monitor", "Prober", "StateFiles"]
