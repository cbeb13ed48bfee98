"""What an interface has, remembered before a change that may take it along; for the worker alone.

The kernel takes much away in silence: addresses of IPv6 and routes when an interface goes down, all
there is when it moves, secondary addresses with their primary. It is given back as it was told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orlop.errors import FailedPrecondition
from orlop.network import objects
from orlop.network.rtnetlink import REPLACE
from orlop.network.sockets import Namespaces

_SYSCTLS = ("ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh")


class Interface:
    """Addresses, routes, lasting neighbours, limit to the rate, and settings as a bridge's port.

    With `sysctls` those of the interface as well, for `restore_sysctls`.
    """

    def __init__(
        self, namespaces: Namespaces, ns: str, name: str, *, sysctls: bool = False
    ) -> None:
        self._namespaces, self._ns, self._name = namespaces, ns, name
        self._index = index = namespaces.index(ns, name)
        raw = namespaces.raw(ns)
        self._addresses = objects.addresses(raw, index)
        self._routes = objects.routes(raw, link=index)
        self._neighbours = objects.neighbours(raw, index)
        self._limits = objects.limits(raw, index)
        self._port = objects.port(raw, index)
        self._sysctls = dict(self._read_sysctls()) if sysctls else {}

    def restore_sysctls(self) -> None:
        """Before it goes up, as some say what comes with that."""
        now = dict(self._read_sysctls()) if self._sysctls else {}
        with self._namespaces.inside(self._ns):
            for file, value in self._sysctls.items():
                if now.get(file) != value:
                    with suppress(OSError):
                        file.write_text(value)

    def restore(self) -> None:
        """Give back what is missing.

        The interface is up or down, and in a bridge, as it was. Raises FailedPrecondition with all
        that it lacks in the end.
        """
        if self._namespaces.index(self._ns, self._name) != self._index:
            raise FailedPrecondition(
                f'interface "{self._name}" came back under another number, and bare'
            )
        problems = [each for each in self._restore() if each]
        if problems:
            raise FailedPrecondition(f'interface "{self._name}" lacks {", ".join(problems)}')

    def _restore(self) -> Iterator[str]:
        raw = self._namespaces.raw(self._ns)
        if self._port is not None:
            yield objects.attempt(raw.change, self._port)
        yield from objects.restore_addresses(raw, self._index, self._addresses)
        yield from objects.restore(raw, [*self._routes, *self._limits])
        yield from objects.restore(raw, self._neighbours, REPLACE)

    def _read_sysctls(self) -> Iterator[tuple[Path, str]]:
        with self._namespaces.inside(self._ns):
            for folder in _SYSCTLS:
                for file in sorted(Path("/proc/sys/net", folder, self._name).glob("*")):
                    with suppress(OSError):  # some are for writing, or have no value yet
                        yield file, file.read_text()
