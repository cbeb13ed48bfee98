"""What the daemon tells the DNS process, each message in a packet, and answered by one.

After a connection comes `Begin`, then a `Listen` for each network and a `Put` for each container,
and `End`: what was not named in between is forgotten.
"""

from __future__ import annotations

import msgspec

MAX_PACKET = 128 * 1024


class Place(msgspec.Struct, frozen=True):
    """A container in a network, with its other names there. An `internal` one leads nowhere."""

    network: str
    network_name: str
    internal: bool
    addresses: tuple[str, ...]
    aliases: tuple[str, ...]
    subnets: tuple[str, ...]


class Entry(msgspec.Struct, frozen=True):
    """A container that runs: what it is called, where it is, and whom it asks for other names.

    Without `upstreams` it asks those of the host.
    """

    namespace: str
    container: str
    names: tuple[str, ...]
    places: tuple[Place, ...]
    upstreams: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.container


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all."""


class Begin(Message, frozen=True):
    """The daemon is about to say all that there is."""


class End(Message, frozen=True):
    """That was all."""


class Listen(Message, frozen=True, kw_only=True):
    """Answer on the sockets that come along, a datagram one and a listening one by turns.

    Without any, on those that the process has for the network: it answers whether it has.
    """

    network: str


class Leave(Message, frozen=True, kw_only=True):
    """The network is gone."""

    network: str


class Put(Message, frozen=True, kw_only=True):
    """A container is where its entry says."""

    entry: Entry


class Drop(Message, frozen=True, kw_only=True):
    """A container is nowhere any more."""

    namespace: str
    container: str


AnyMessage = Begin | End | Listen | Leave | Put | Drop


class Answer(msgspec.Struct, frozen=True):
    """That it is done. `ports` are those of a network's sockets, by address: UDP's and TCP's."""

    version: str
    ports: dict[str, tuple[int, int]] = {}
