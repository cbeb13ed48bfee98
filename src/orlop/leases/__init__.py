"""Leases: what keeps a resource from garbage collection before anything else refers to it."""

from orlop.leases.model import Lease, Resource
from orlop.leases.store import LeaseStore

__all__ = ["Lease", "LeaseStore", "Resource"]
