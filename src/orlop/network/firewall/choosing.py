"""Which packet filter is used: what the configuration says, or the first that works here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from orlop.errors import FailedPrecondition, NotFound, OrlopError
from orlop.network.firewall.ruleset import Ruleset

AUTO = "auto"
_log = logging.getLogger(__name__)


class Backend(Protocol):
    """One way to filter packets."""

    def check(self) -> None:
        """Raise FailedPrecondition or NotFound if it does not work here."""

    def make(self, ruleset: Ruleset) -> None:
        """Make the rules these, and no others of ours; raises the kernel's refusal in words."""

    def remove(self) -> None:
        """Leave nothing of ours; fine if nothing is there."""


class Firewall:
    """The packet filter, chosen when it is first needed. For one thread at a time.

    `wanted` names one of the `backends`, or is AUTO: then they are tried in their order. The file
    `memory`, which is gone when the kernel has forgotten its rules, says which one has made some:
    when another is chosen, they are removed first.
    """

    def __init__(self, backends: Mapping[str, Backend], wanted: str, memory: Path) -> None:
        self._backends = backends
        self._wanted = wanted
        self._memory = memory
        self._chosen: Backend | None = None

    def make(self, ruleset: Ruleset) -> None:
        """Make the rules these; FailedPrecondition if no way to do it works here."""
        if self._chosen is None:
            self._chosen = self._choose()
        self._chosen.make(ruleset)

    def remove(self) -> None:
        """Take all rules away that have been made since the host was started."""
        if (before := self._made_before()) is not None:
            before.remove()

    def _choose(self) -> Backend:
        name, found = self._working()
        before = self._made_before()
        if before is not None and before is not found:
            try:
                before.remove()
            except OrlopError as error:
                _log.warning("rules of another packet filter stay: %s", error)
        self._memory.write_text(name)
        _log.info("the packet filter is %s", name)
        return found

    def _working(self) -> tuple[str, Backend]:
        reasons = []
        for name, backend in self._backends.items():
            if self._wanted not in (AUTO, name):
                continue
            try:
                backend.check()
            except (FailedPrecondition, NotFound) as error:
                reasons.append(error.message)
            else:
                return name, backend
        raise FailedPrecondition(f"no packet filter works here: {'; '.join(reasons)}")

    def _made_before(self) -> Backend | None:
        try:
            return self._backends.get(self._memory.read_text())
        except FileNotFoundError:
            return None
