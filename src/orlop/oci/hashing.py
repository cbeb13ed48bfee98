"""Hash objects for digests, apart from these: `hashlib` loads OpenSSL.

Confined workers import it at their top, since they can load nothing later.
"""

from __future__ import annotations

import hashlib
from typing import Any


def new_hash(algorithm: str = "sha256", data: bytes = b"") -> Any:
    """A hash object of an algorithm that `Digest` knows."""
    return hashlib.new(algorithm, data)
