"""Who this daemon is: an identifier that outlives restarts, and the daemon's process."""

from __future__ import annotations

import uuid
from pathlib import Path

_FILE = "uuid"


def load(root: Path) -> str:
    """The daemon's UUID, kept in `root`; made at the first start, and anew if the file is bad."""
    path = root / _FILE
    try:
        return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
    except (FileNotFoundError, ValueError):
        identity = str(uuid.uuid4())
    new = path.with_suffix(".new")
    new.write_text(f"{identity}\n", encoding="ascii")
    new.replace(path)
    return identity


def pid_namespace() -> int:
    """The inode number of this process's pid namespace."""
    return Path("/proc/self/ns/pid").stat().st_ino
