"""Care for the store as a whole, in all namespaces: whether it is sound, and what to do if not.

`inspection` compares records and files, in a worker of the daemon or without any; `Checker` adds
what only the daemon can do about what was found.
"""

from orlop.upkeep.adopting import Adopter
from orlop.upkeep.checking import Checker, Wish
from orlop.upkeep.findings import Finding, Outcome

__all__ = ["Adopter", "Checker", "Finding", "Outcome", "Wish"]
