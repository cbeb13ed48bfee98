"""That the host forwards packets: for containers it must, and for nobody else because of that.

A host that was none may not become a router by its first container, over which anybody in one
network of it reaches another, as one behind a VPN. So who has switched it on has to tell the packet
filter what else to forward, which is nothing of what was there: see `Ruleset.closed`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from orlop import typed
from orlop.errors import NotFound, OrlopError
from orlop.network.kernel import Kernel
from orlop.network.model import Link
from orlop.network.operations import SetSysctl

KINDS = ("bridge", "veth")
"""The interfaces by which others' containers and machines reach the host."""
_SWITCHES = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_OWN_SWITCHES = {4: "net/ipv4/conf/{}/forwarding", 6: "net/ipv6/conf/{}/force_forwarding"}
"""Those of an interface, by which it forwards what comes in there, whatever that of all says."""
_log = logging.getLogger(__name__)
_PLAIN = re.compile("[A-Za-z0-9._@-]+")
_Closed = dict[int, tuple[str, ...]]


class Forwarding:
    """For one thread at a time.

    The file `memory`, which is gone when the kernel has forgotten its switches, names those that
    were ours to set. A `router` is to forward whatever comes.
    """

    def __init__(self, kernel: Kernel, memory: Path, *, router: bool = False) -> None:
        self._kernel = kernel
        self._memory = memory
        self._router = router
        self._noted = self._read()
        for version in self.closed:
            _tell(version)

    @property
    def closed(self) -> Mapping[int, tuple[str, ...]]:
        """The versions of IP that the host forwards for our sake alone.

        With the interfaces of the `KINDS` that were there already when it began to.
        """
        return {} if self._router else self._noted

    def open(self, versions: Iterable[int], close: Callable[[], None]) -> None:
        """Have the host forward these versions of IP; `close` makes the rules before it does."""
        off = [each for each in versions if self._kernel.sysctl(_SWITCHES[each]) == "0"]
        if not off:
            return
        links = self._kernel.links()
        known = tuple(each.name for each in links if each.kind in KINDS and is_plain(each.name))
        new = [e for e in off if e not in self._noted and not self._is_router(e, links)]
        self._note({**dict.fromkeys(new, known), **self._noted})
        for version in new if self.closed else ():
            _tell(version)
        close()
        for each in self._routed_by_others(links) if 6 in off else ():
            with suppress(OrlopError):  # it has gone, or knows no IPv6
                self._kernel.apply(each)
        self._kernel.apply(*(SetSysctl(name=_SWITCHES[each], value="1") for each in off))

    def _routed_by_others(self, links: Iterable[Link]) -> Iterator[SetSysctl]:
        """A host that hears routers goes on so: as one itself it does only where it is told to."""
        for each in links:
            conf = f"net/ipv6/conf/{each.name}"
            heard = self._reads(f"{conf}/accept_ra") == "1"
            if heard and self._reads(f"{conf}/forwarding") == "0":  # a router is deaf by 1
                yield SetSysctl(name=f"{conf}/accept_ra", value="2")

    def _is_router(self, version: int, links: Iterable[Link]) -> bool:
        """Whether it forwards what comes in somewhere, though not everywhere."""
        own = _OWN_SWITCHES[version]
        return any(self._reads(own.format(each.name)) == "1" for each in links)

    def _reads(self, name: str) -> str:
        """The value of a sysctl; "" if it is not there, as that of an interface that has gone."""
        try:
            return self._kernel.sysctl(name)
        except NotFound:
            return ""

    def _read(self) -> _Closed:
        try:
            return typed.decode(self._memory.read_bytes(), _Closed)
        except FileNotFoundError:
            return {}

    def _note(self, closed: _Closed) -> None:
        new = self._memory.with_name(f".{self._memory.name}")
        new.write_bytes(msgspec.json.encode(closed))
        new.replace(self._memory)
        self._noted = closed


def _tell(version: int) -> None:
    _log.warning(
        "the host forwards IPv%d for containers alone, and drops what else it is to route:"
        " [network] router = true lets it pass",
        version,
    )


def is_plain(link: str) -> bool:
    """Whether a packet filter can be told this name: any other would be something else."""
    return _PLAIN.fullmatch(link) is not None
