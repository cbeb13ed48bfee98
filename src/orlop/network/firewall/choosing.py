"""Which packet filter is used: what the configuration says, or the first that works here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
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

    def stands(self, ruleset: Ruleset) -> bool:
        """Whether the rules that were made are still there, at a glance."""

    def remove(self) -> None:
        """Leave nothing of ours; fine if nothing is there."""


class Firewall:
    """The packet filter, chosen when it is first needed. For one thread at a time.

    `wanted` names one of the `backends`, or is AUTO: then they are tried in their order. The file
    `memory`, which is gone when the kernel has forgotten its rules, names those of which there may
    be rules: when another is chosen, they are removed first.
    """

    def __init__(self, backends: Mapping[str, Backend], wanted: str, memory: Path) -> None:
        self._backends = backends
        self._wanted = wanted
        self._memory = memory
        self._noted = self._read()
        self._chosen = ""
        self._made: Ruleset | None = None

    def check(self) -> None:
        """Raise FailedPrecondition if no way to make rules works here."""
        self._backends[self._chosen or self._working()].check()

    def make(self, ruleset: Ruleset) -> None:
        """Make the rules these; FailedPrecondition if no way to do it works here."""
        if not self._chosen:
            self._chosen = self._working()
            self._leave_others()
            _log.info("the packet filter is %s", self._chosen)
        if self._chosen not in self._noted:
            self._note([*self._noted, self._chosen])
        self._backends[self._chosen].make(ruleset)
        self._made = ruleset

    def mend(self) -> bool:
        """Make the rules again if somebody else has taken them away; whether that was so."""
        if self._made is None or self._backends[self._chosen].stands(self._made):
            return False
        self.make(self._made)
        return True

    def remove(self) -> None:
        """Take all rules away that have been made since the host was started."""
        self._made = None
        if self._chosen:
            self._leave_others()
        for name in self._noted:
            if self._chosen in ("", name):
                self._clear(name)

    def _leave_others(self) -> None:
        """What cannot be removed now is tried again by the next start, or with all rules."""
        for name in self._noted:
            if name != self._chosen:
                try:
                    self._clear(name)
                except OrlopError as error:
                    _log.warning("rules of another packet filter, %s, stay: %s", name, error)

    def _clear(self, name: str) -> None:
        self._backends[name].remove()
        self._note([each for each in self._noted if each != name])

    def _working(self) -> str:
        reasons = []
        for name, backend in self._backends.items():
            if self._wanted not in (AUTO, name):
                continue
            try:
                backend.check()
            except (FailedPrecondition, NotFound) as error:
                reasons.append(error.message)
            else:
                return name
        raise FailedPrecondition(f"no packet filter works here: {'; '.join(reasons)}")

    def _read(self) -> Sequence[str]:
        try:
            return [name for name in self._memory.read_text().split() if name in self._backends]
        except FileNotFoundError:
            return []

    def _note(self, names: Sequence[str]) -> None:
        new = self._memory.with_name(f".{self._memory.name}")
        new.write_text("".join(f"{name}\n" for name in names))
        new.replace(self._memory)
        self._noted = names
