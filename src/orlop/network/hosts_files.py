"""Names in networks that have no name server of ours: those of macvlan, ipvlan and CNI.

The `/etc/hosts` of each container has the others that are in such networks with it, between two
lines that say so. What is before and behind is the container's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import NotFound
from orlop.network.cni_records import PREFIX
from orlop.network.connections import Connections
from orlop.network.files import edit
from orlop.network.model import Endpoint

NamesOf = Callable[[str, str], Sequence[str]]
"""From a namespace and a container to what it is called."""
MOST_MEMBERS = 100
"""Of larger networks nobody has the others: each file would have all, and change with each."""
_NO_NAMES = set(" \t\r\n#")
_log = logging.getLogger(__name__)
_BEGIN = b"# Others in its networks, by orlop\n"
_END = b"# End of these\n"
_SHORT_ID = 12


class HostsFiles:
    """Keeps the files, which are in the bundles of `folder`. For one thread."""

    def __init__(self, folder: Path, connections: Connections, names_of: NamesOf) -> None:
        self._folder = folder
        self._connections = connections
        self._names_of = names_of

    def refresh(self, namespace: str, network: str, container: str = "") -> None:
        """Somebody has come into a network, or gone, maybe a `container` that goes on."""
        with suppress(NotFound):  # as one that is just removed; who was in there goes on
            if self._connections.named(namespace, network).is_bridge:
                return
        known = {network: self._lines(namespace, network)}
        for each in {*known[network], *filter(None, [container])}:
            self._write(namespace, each, known)

    def refresh_all(self) -> None:
        """Make up for what was missed."""
        known = self._connections.endpoints()
        for namespace, network in {(each.namespace, each.network) for each in known}:
            self.refresh(namespace, network)

    def _write(self, namespace: str, container: str, known: dict[str, dict[str, str]]) -> None:
        """One file; `known` are the lines of each, by networks, and is added to."""
        others = []
        for mine in self._connections.endpoints(namespace, container):
            if mine.network not in known:
                known[mine.network] = self._lines(namespace, mine.network)
            others += [text for who, text in known[mine.network].items() if who != container]
        path = self._folder / namespace / container / "hosts"
        try:
            rewrite(path, "".join(dict.fromkeys(others)).encode())
        except OSError as error:
            _log.warning('"%s" has not the names of others: %s', path, error)

    def _lines(self, namespace: str, network: str) -> dict[str, str]:
        """By containers in a network what others are to read of each; of few only."""
        try:
            found = self._connections.named(namespace, network)
        except NotFound:
            return {}
        if found.is_bridge:
            return {}
        members = [
            each
            for each in self._connections.endpoints(network=network)
            if each.namespace == namespace
        ]
        where = found.name.removeprefix(PREFIX)
        many = len(members) > MOST_MEMBERS
        return {each.container: "" if many else self._text(each, where) for each in members}

    def _text(self, each: Endpoint, where: str) -> str:
        names = [*self._names_of(each.namespace, each.container), *each.aliases]
        names += [each.container, each.container[:_SHORT_ID]]
        called = dict.fromkeys(name for name in names if name and not set(name) & _NO_NAMES)
        shown = " ".join([*called, *(f"{name}.{where}" for name in called)])
        return "".join(f"{address}\t{shown}\n" for address in each.addresses)


def rewrite(path: Path, others: bytes) -> None:
    """Write in place who else is in a container's networks; fine if there is no such file."""
    edit(path, lambda text: _with_others(text, others))


def _with_others(text: bytes, section: bytes) -> bytes:
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    if not section:
        return before + after
    return _ended(before) + _BEGIN + section + _END + after


def amended(text: bytes, before: bytes, now: bytes) -> bytes:
    """A file of which we had written the text `before`, as it is to be when that is `now`.

    Lines that others have added, or taken away, are left so.
    """
    old, new = (each.splitlines(keepends=True) for each in (before, now))
    own, mark, rest = text.partition(_BEGIN)
    kept = [line for line in own.splitlines(keepends=True) if line not in old or line in new]
    come = [line for line in new if line not in old and line not in kept]
    return (_ended(b"".join(kept)) if come else b"".join(kept)) + b"".join(come) + mark + rest


def _ended(text: bytes) -> bytes:
    """With an end of its last line."""
    return text if not text or text.endswith(b"\n") else text + b"\n"
