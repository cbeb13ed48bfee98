"""How much one archive may make."""

from __future__ import annotations

from orlop.errors import ResourceExhausted

_IMPLIED_MAX, _IMPLIED_BYTES = 100_000, 64 << 20


class Bounds:
    """Counts the `entries` of an archive (`what`), and the folders that it implies.

    One short entry can imply thousands of folders, each with a path of its own to be kept.
    """

    def __init__(self, what: str, max_entries: int) -> None:
        self.entries = 0
        self._what = what
        self._max_entries = max_entries
        self._implied = self._implied_bytes = 0

    def entry(self) -> None:
        """One more; raises ResourceExhausted."""
        self.entries += 1
        if self.entries > self._max_entries:
            raise ResourceExhausted(
                f"{self._what} has more than the {self._max_entries} entries that the daemon allows"
            )

    def implied(self, path: bytes) -> None:
        """One more folder, which counts as an entry; raises ResourceExhausted."""
        self.entry()
        self._implied += 1
        self._implied_bytes += len(path)
        if self._implied > _IMPLIED_MAX or self._implied_bytes > _IMPLIED_BYTES:
            raise ResourceExhausted(
                f"{self._what} lacks folders for its entries: more than {_IMPLIED_MAX}, or with "
                f"paths of more than {_IMPLIED_BYTES >> 20} MiB together"
            )
