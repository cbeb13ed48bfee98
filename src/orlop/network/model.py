"""What is found in a network namespace."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct, frozen=True):
    """What has passed through an interface since it was made."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Link(msgspec.Struct, frozen=True):
    """An interface. `kind` is "" for hardware and lo; `master` is the bridge that it is in.

    `parent` is the index of what it is made on or its peer, 0 for none, which may be in another
    namespace. `addresses` are with prefixes.
    """

    index: int
    name: str
    kind: str = ""
    up: bool = False
    state: str = ""
    mtu: int = 0
    mac: str = ""
    alias: str = ""
    master: str = ""
    parent: int = 0
    addresses: tuple[str, ...] = ()
    counters: Counters = Counters()


class Neighbour(msgspec.Struct, frozen=True):
    """Where an address is on an interface, as far as the kernel knows."""

    link: str
    address: str
    mac: str = ""
    permanent: bool = False
