"""What can be done to the network of a namespace: a list of these is applied whole, or not at all.

Each operation works in the network namespace `ns`: the path of a namespace's file (a pin, or
`/proc/PID/ns/net`), "" for that of the process that applies it.
"""

from __future__ import annotations

import msgspec

LINK_NAME_MAX = 15
KINDS = ("veth", "bridge", "macvlan", "ipvlan", "vlan", "vxlan", "dummy", "ifb", "tun", "tap")


class Operation(msgspec.Struct, frozen=True, tag=True):
    """Base of all; `about` says in words what it does, for errors."""

    ns: str = ""

    @property
    def about(self) -> str:
        raise NotImplementedError


class AddLink(Operation, frozen=True, kw_only=True):
    """Make an interface of one of the `KINDS`; undone by deleting it.

    A veth has a `peer`, made in the namespace `peer_ns`; macvlan, ipvlan, vlan and, if it is to
    send through one, vxlan have a `parent`. `mode` is macvlan's (bridge, private, vepa, passthru)
    or ipvlan's (l2, l3, l3s). `id` is that of a vlan or vxlan, whose `remote` and `local` are
    addresses and `port` is of UDP. `alias` is a text for people. With `hairpin` the bridge that is
    its `master` may send back through it what came from it. With `exist_ok` one of the same kind
    that is there will do, as it is.
    """

    name: str
    kind: str
    exist_ok: bool = False
    up: bool = False
    mtu: int = 0
    mac: str = ""
    alias: str = ""
    master: str = ""
    hairpin: bool = False
    peer: str = ""
    peer_ns: str = ""
    peer_mac: str = ""
    parent: str = ""
    mode: str = ""
    id: int = 0
    remote: str = ""
    local: str = ""
    port: int = 0

    @property
    def about(self) -> str:
        return f'add {self.kind} "{self.name}"'


class DeleteLink(Operation, frozen=True, kw_only=True):
    """Remove an interface. It cannot be undone, so nothing but its like may follow it."""

    name: str
    missing_ok: bool = False

    @property
    def about(self) -> str:
        return f'delete interface "{self.name}"'


class SetLink(Operation, frozen=True, kw_only=True):
    """Change an interface; what is None stays. `master` "" takes it out of its bridge."""

    name: str
    up: bool | None = None
    mtu: int | None = None
    mac: str | None = None
    master: str | None = None
    alias: str | None = None
    rename: str | None = None

    @property
    def about(self) -> str:
        return f'change interface "{self.name}"'


class MoveLink(Operation, frozen=True, kw_only=True):
    """Move an interface to the namespace `to`, there to be called `rename` if that is given.

    The kernel takes its addresses away and sets it down; where it is moved back as what is behind
    it failed, it has all of that again.
    """

    name: str
    to: str
    rename: str = ""

    @property
    def about(self) -> str:
        return f'move interface "{self.name}" to {place(self.to)}'


class _OfLink(Operation, frozen=True, kw_only=True):
    link: str
    address: str


class AddAddress(_OfLink, frozen=True, kw_only=True):
    """Give an interface an `address`, as 10.0.0.1/24 or fd00::1/64, usable at once."""

    exist_ok: bool = False

    @property
    def about(self) -> str:
        return f'add address {self.address} to interface "{self.link}"'


class DeleteAddress(_OfLink, frozen=True, kw_only=True):
    """Take an address away from an interface."""

    @property
    def about(self) -> str:
        return f'delete address {self.address} of interface "{self.link}"'


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route to `destination`, a prefix; 0.0.0.0/0 and ::/0 are the default routes.

    Through the `gateway`, or straight out of `link`. `table` 0 is the main table.
    """

    destination: str
    gateway: str = ""
    link: str = ""
    source: str = ""
    metric: int = 0
    table: int = 0


class AddRoute(Operation, frozen=True, kw_only=True):
    """Add a route."""

    route: Route
    exist_ok: bool = False

    @property
    def about(self) -> str:
        return f"add route to {self.route.destination}"


class DeleteRoute(Operation, frozen=True, kw_only=True):
    """Delete a route."""

    route: Route

    @property
    def about(self) -> str:
        return f"delete route to {self.route.destination}"


class AddNeighbour(_OfLink, frozen=True, kw_only=True):
    """Say for good that `address` is at `mac` on an interface."""

    mac: str

    @property
    def about(self) -> str:
        return f'add neighbour {self.address} to interface "{self.link}"'


class DeleteNeighbour(_OfLink, frozen=True, kw_only=True):
    """Forget a neighbour."""

    @property
    def about(self) -> str:
        return f'delete neighbour {self.address} of interface "{self.link}"'


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule of policy routing: what matches is looked up in `table`. `family` is 4 or 6."""

    priority: int
    table: int
    source: str = ""
    destination: str = ""
    mark: int = 0
    family: int = 4


class AddRule(Operation, frozen=True, kw_only=True):
    """Add a rule of policy routing."""

    rule: Rule

    @property
    def about(self) -> str:
        return f"add rule {self.rule.priority}"


class DeleteRule(Operation, frozen=True, kw_only=True):
    """Delete a rule of policy routing."""

    rule: Rule

    @property
    def about(self) -> str:
        return f"delete rule {self.rule.priority}"


class AddRateLimit(Operation, frozen=True, kw_only=True):
    """Let an interface send `rate` bits in a second at most (a tbf as its root, tc-tbf(8)).

    `burst` bytes may go at once; 0 is what goes in a tenth of a second, or 64 KiB if that is less.
    AlreadyExists for an interface that has a limit.
    """

    link: str
    rate: int
    burst: int = 0

    @property
    def about(self) -> str:
        return f'limit the rate of interface "{self.link}"'


class DeleteRateLimit(Operation, frozen=True, kw_only=True):
    """Take the limit away; NotFound for an interface that has none, or queues in another way."""

    link: str

    @property
    def about(self) -> str:
        return f'take the limit of interface "{self.link}" away'


class SetSysctl(Operation, frozen=True, kw_only=True):
    """Set a sysctl below net, as `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.5/forwarding`."""

    name: str
    value: str

    @property
    def about(self) -> str:
        return f"set sysctl {self.name}={self.value}"


AnyOperation = (
    AddLink
    | DeleteLink
    | SetLink
    | MoveLink
    | AddAddress
    | DeleteAddress
    | AddRoute
    | DeleteRoute
    | AddNeighbour
    | DeleteNeighbour
    | AddRule
    | DeleteRule
    | AddRateLimit
    | DeleteRateLimit
    | SetSysctl
)


def place(ns: str) -> str:
    """A namespace in words."""
    return f'network namespace "{ns}"' if ns else "the daemon's network namespace"
