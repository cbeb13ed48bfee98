"""Garbage collection: what nothing keeps any more goes, at a cost that follows the garbage.

The database notes by name whatever may have lost its last keeper (`schema_v4.sql`). A collection
looks at these names alone, and asks of each whether a way leads back from it, against the
references, to something that is kept: most ways are two or three steps long. Which labels are
references is containerd's rule, `containerd.io/gc.*`.
"""

from orlop.gc.collector import Collection, Collector
from orlop.gc.graph import Graph, Node
from orlop.gc.scheduler import Scheduler, Thresholds

__all__ = ["Collection", "Collector", "Graph", "Node", "Scheduler", "Thresholds"]
