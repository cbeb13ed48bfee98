"""Keeps every container's health in a file below the state folder: it need not outlive a boot."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from orlop.health.state import Health

Key = tuple[str, str]
"""A namespace and a container."""


class StateFiles:
    """One file a container; each has one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def save(self, key: Key, health: Health) -> None:
        path = self._path(key)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_name(f".{path.name}")
        new.write_text(json.dumps(health.dump()))
        os.replace(new, path)  # noqa: PTH105 - the same, said shorter

    def load(self, key: Key) -> Health | None:
        """None for one that has none; a file that is damaged is none."""
        try:
            return Health.load(json.loads(self._path(key).read_text()))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def remove(self, key: Key) -> None:
        self._path(key).unlink(missing_ok=True)

    def keys(self) -> Iterator[Key]:
        for path in self._folder.glob("*/*.json"):
            yield path.parent.name, path.stem

    def _path(self, key: Key) -> Path:
        namespace, container = key
        return self._folder / namespace / f"{container}.json"
