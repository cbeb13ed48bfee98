"""The paths that a layer has had so far, for deletions that are meant for lower layers only."""

from __future__ import annotations


class OwnPaths:
    """Entries, and the folders on the way to them, of which some may be a lower layer's, too."""

    def __init__(self) -> None:
        self._entries: set[bytes] = set()
        self._folders: set[bytes] = set()

    def add(self, path: bytes, folder: bytes) -> None:
        """An entry, and the folder that it is in."""
        self._entries.add(path)
        while folder and folder not in self._folders:
            self._folders.add(folder)
            folder = folder.rpartition(b"/")[0]

    def has(self, path: bytes) -> bool:
        """Whether there was an entry of this path."""
        return path in self._entries

    def reach(self, path: bytes) -> bool:
        """Whether there was one, or one further down."""
        return path in self._entries or path in self._folders
