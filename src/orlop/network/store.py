"""Records: networks, who is in them at which address, and which ports lead where."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.metadata import Database, Transaction, clock, filters, labels
from orlop.metadata.fieldmask import Mask
from orlop.metadata.references import LEASED, attach_to_lease, ensure_namespace
from orlop.metadata.sweeping import Dead
from orlop.network import pools, port_records, uplink
from orlop.network.model import Endpoint, Network, Port, Rates, Subnet, Wish
from orlop.rpc.context import validate_identifier

GUEST = "cni:"
"""What the container of an endpoint begins with that is none of ours (`guests`)."""
RESOURCE = "networks"
"""What networks are called among a lease's resources."""
_KIND = "network"
_BRIDGE = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_SMALLEST_MTU, _LARGEST_MTU = 68, 65535


@dataclass(frozen=True, slots=True)
class Pools:
    """What networks take their subnets from, and how large each is."""

    v4: str = "10.88.0.0/13"
    v4_prefix: int = 20
    v6: str = "fd6f:726c:6f70::/48"
    v6_prefix: int = 64


class NetworkStore:
    """The networks of all namespaces; `bridge` is the interface of the first one."""

    def __init__(self, db: Database, bridge: str, available: Pools) -> None:
        self._db = db
        self._bridge = bridge
        self._pools = available

    # Networks

    def create(
        self,
        wanted: Network,
        taken: Iterable[str],
        avoided: Collection[str] = (),
        *,
        ipv4: bool = True,
        ipv6: bool = False,
        lease: str = "",
    ) -> Network:
        """Add a network; without subnets it gets one of each family that it shall have.

        `taken` are prefixes that the host has use for, `avoided` such as it gets from a pool only
        if there are no others. Raises AlreadyExists, InvalidArgument, NotFound for the lease, and
        FailedPrecondition for a subnet that overlaps another one.
        """
        validate_identifier("network", wanted.name)
        labels.validate(wanted.labels)
        _check_driver(wanted)
        if wanted.mtu and not _SMALLEST_MTU <= wanted.mtu <= _LARGEST_MTU:
            raise InvalidArgument(
                f'MTU {wanted.mtu} of network "{wanted.name}" is not '
                f"{_SMALLEST_MTU} to {_LARGEST_MTU} bytes"
            )
        if not wanted.is_bridge:  # its subnets are those of the host, and all of them are given
            taken, ipv4, ipv6 = (), False, False
        elif wanted.bridge and not _BRIDGE.fullmatch(wanted.bridge):
            raise InvalidArgument(
                f'bridge "{wanted.bridge}" of network "{wanted.name}" must be a letter or digit '
                'and up to 14 letters, digits, ".", "_" or "-"'
            )
        with self._db.write() as tx:
            if _row(tx, wanted.namespace, wanted.name) is not None:
                raise AlreadyExists(f'network "{wanted.name}"')
            rows = tx.all("SELECT subnet FROM network_subnets")
            used = [row["subnet"] for row in rows]
            taken = [*used, *taken]
            subnets = self._subnets(wanted.subnets, taken, avoided, ipv4=ipv4, ipv6=ipv6)
            ensure_namespace(tx, wanted.namespace)
            number = secrets.token_hex(6)
            made = Network(
                id=number,
                namespace=wanted.namespace,
                name=wanted.name,
                driver=wanted.driver,
                mode=wanted.mode,
                bridge=wanted.bridge or self._free_bridge(tx, number),
                internal=wanted.internal,
                mtu=wanted.mtu,
                subnets=subnets,
                labels=_kept(wanted.labels, lease),
                created_at=clock.now(),
            )
            _insert(tx, made)
            attach_to_lease(tx, made.namespace, lease, RESOURCE, made.name)
        return made

    def update(self, namespace: str, name: str, changed: Mapping[str, str], mask: Mask) -> Network:
        """Change the labels that the mask names; raises NotFound and InvalidArgument."""
        with self._db.write() as tx:
            found = _network(tx, _required(tx, namespace, name))
            merged = mask.merge("labels", found.labels, changed)
            labels.validate(merged)
            labels.replace(tx, _KIND, namespace, found.id, merged)
        return msgspec.structs.replace(found, labels=merged)

    def _free_bridge(self, tx: Transaction, number: str) -> str:
        used = tx.one("SELECT 1 FROM networks WHERE bridge = ?", (self._bridge,))
        return self._bridge if used is None else f"br-{number}"

    def _subnets(
        self, asked: Sequence[Subnet], taken: list[str], avoided: Collection[str], *, ipv4: bool,
        ipv6: bool,
    ) -> tuple[Subnet, ...]:  # fmt: skip
        for each in asked:
            if other := pools.overlapping(each, taken):
                raise FailedPrecondition(f'subnet "{each.subnet}" overlaps "{other}"')
        families = [each.version for each in asked]
        if len(set(families)) < len(families):
            raise InvalidArgument("a network has at most one subnet of each family")
        found = list(asked)
        if 4 not in families and ipv4:
            found.append(pools.free_subnet(self._pools.v4, self._pools.v4_prefix, taken, avoided))
        if 6 not in families and ipv6:
            found.append(pools.free_subnet(self._pools.v6, self._pools.v6_prefix, taken, avoided))
        if not found:
            raise InvalidArgument("a network without a subnet")
        return tuple(sorted(found, key=lambda each: each.version))

    def get(self, namespace: str, name: str) -> Network:
        """A network by its name or id; raises NotFound."""
        with self._db.read() as tx:
            return _network(tx, _required(tx, namespace, name))

    def of_namespace(self, namespace: str, wanted: Iterable[str] = ()) -> list[Network]:
        """Those that any of the filters match, by name; they see id, name, driver, labels."""
        return matching([each for each in self.all() if each.namespace == namespace], wanted)

    def all(self) -> list[Network]:
        """Of all namespaces, by name."""
        with self._db.read() as tx:
            rows = tx.all("SELECT * FROM networks ORDER BY name")
            return [_network(tx, row) for row in rows]

    def delete(self, namespace: str, name: str, dead: Dead | None = None) -> Network:
        """Remove a network; FailedPrecondition while it is used, or is not `dead` if it must be."""
        with self._db.write() as tx:
            network = _network(tx, _required(tx, namespace, name))
            _check_unused(tx, network, dead)
            labels.remove(tx, _KIND, namespace, network.id)
            tx.execute("DELETE FROM networks WHERE id = ?", (network.id,))
        return network

    def check_unused(self, network: Network, dead: Dead | None = None) -> None:
        """Raise FailedPrecondition if containers are in a network, or it is not `dead`."""
        with self._db.read() as tx:
            _check_unused(tx, network, dead)

    # Containers in them

    def reserve(
        self,
        network: Network,
        container: str,
        wish: Wish,
        position: int | None = None,
        inside: str = "",
        taken: Collection[str] = (),
    ) -> Endpoint:
        """Give a container its place in a network, and addresses that nobody else has.

        Its interface there is called `inside`, "eth" and its position if that is "". `taken` are
        addresses of others, of whom there is no record.

        Raises AlreadyExists for one that is in there, and what `pools.choose` raises.
        """
        with self._db.write() as tx:
            _required(tx, network.namespace, network.id)
            key = (network.namespace, container)
            mine = tx.all(
                "SELECT * FROM network_endpoints WHERE namespace = ? AND container = ?", key
            )
            if any(row["network"] == network.id for row in mine):
                raise AlreadyExists(f'container "{container}" in network "{network.name}"')
            used = {row["position"] for row in mine}
            if position is None:
                position = next(n for n in range(len(used) + 1) if n not in used)
            wish.check()
            asked = {4: wish.ip, 6: wish.ip6}
            for version, text in asked.items():
                if text and version not in {each.version for each in network.subnets}:
                    raise InvalidArgument(
                        f'network "{network.name}" has no subnet for address "{text}"'
                    )
            wish.check_rates(network)
            chosen = tuple(_choose(tx, network, each, asked, taken) for each in network.subnets)
            endpoint = Endpoint(
                namespace=network.namespace,
                container=container,
                network=network.id,
                position=position,
                link=_link(network, container),
                inside=inside or f"eth{position}",
                mac=_mac_of(network, container, wish, chosen),
                aliases=wish.aliases,
                addresses=chosen,
                rates=wish.rates,
            )
            tx.execute(
                "INSERT INTO network_endpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(*key, network.id, position, endpoint.link, endpoint.inside, endpoint.mac),
                    json.dumps(wish.aliases),
                    *(wish.rates.rate_in, wish.rates.rate_out, wish.rates.burst),
                ),
            )
            tx.executemany(
                "INSERT INTO network_addresses VALUES (?, ?, ?, ?)",
                [(network.id, each, *key) for each in chosen],
            )
        return endpoint

    def endpoints(
        self, namespace: str = "", container: str = "", network: str = ""
    ) -> list[Endpoint]:
        """The places of a container, of all in a network, or all that there are."""
        where, values = _where(namespace=namespace, container=container, network=network)
        with self._db.read() as tx:
            rows = tx.all(
                f"SELECT * FROM network_endpoints {where} ORDER BY namespace, container, position",
                values,
            )
            if not rows:
                return []
            addresses: dict[tuple[str, ...], list[str]] = {}
            for row in tx.all(
                f"SELECT * FROM network_addresses {where} ORDER BY address LIKE '%:%'", values
            ):
                addresses.setdefault(_key(row), []).append(row["address"])
        return [_endpoint(row, addresses.get(_key(row), ())) for row in rows]

    def occupied(self) -> bool:
        """Whether any container is in any network."""
        with self._db.read() as tx:
            return tx.one("SELECT 1 FROM network_endpoints LIMIT 1") is not None

    def release(self, namespace: str, container: str, network: str = "") -> list[Endpoint]:
        """Take a container out of a network, or of all; where it was.

        Ports lead to nobody who is in no network any more that publishes them.
        """
        found = self.endpoints(namespace, container, network)
        with self._db.write() as tx:
            for each in found:
                tx.execute(
                    "DELETE FROM network_endpoints"
                    " WHERE namespace = ? AND container = ? AND network = ?",
                    (namespace, container, each.network),
                )
                _note_loss(tx, each)
            port_records.close_unled(tx, namespace, container)
        return found

    # Ports

    def publish(self, namespace: str, container: str, ports: Sequence[Port]) -> None:
        """Note which ports of the host lead to a container, instead of those before.

        Raises FailedPrecondition for one that leads to another already.
        """
        with self._db.write() as tx:
            port_records.replace(tx, namespace, container, ports)

    def ports_of(self, namespace: str, container: str) -> list[Port]:
        """The ports that lead to a container."""
        return self.ports(namespace, container).get((namespace, container), [])

    def ports(self, namespace: str = "", container: str = "") -> dict[tuple[str, str], list[Port]]:
        """The ports that lead to one container, or all, by namespace and container."""
        found: dict[tuple[str, str], list[Port]] = {}
        where, values = _where(namespace=namespace, container=container)
        with self._db.read() as tx:
            for row in tx.all(f"SELECT * FROM network_ports {where}", values):
                key = (row["namespace"], row["container"])
                found.setdefault(key, []).append(port_records.port(row))
        return found


def matching(networks: Iterable[Network], wanted: Iterable[str]) -> list[Network]:
    """Those that any of the filters match; they see id, name, driver, labels."""
    chosen = filters.parse(wanted)
    return [
        each
        for each in networks
        if chosen.matches(
            filters.record(
                {"id": each.id, "name": each.name, "driver": each.driver}, labels=each.labels
            )
        )
    ]


def _where(**wanted: str) -> tuple[str, list[str]]:
    """The clause that compares those columns for which a value is given, and the values."""
    given = {key: value for key, value in wanted.items() if value}
    clause = " AND ".join(f"{key} = ?" for key in given)
    return f"WHERE {clause}" if clause else "", list(given.values())


def _key(row: sqlite3.Row) -> tuple[str, ...]:
    return row["namespace"], row["container"], row["network"]


def _row(tx: Transaction, namespace: str, name: str) -> sqlite3.Row | None:
    return tx.one(
        "SELECT * FROM networks WHERE namespace = ? AND (name = ? OR id = ?) ORDER BY name != ?",
        (namespace, name, name, name),
    )


def _required(tx: Transaction, namespace: str, name: str) -> sqlite3.Row:
    row = _row(tx, namespace, name)
    if row is None:
        raise NotFound(f'network "{name}"')
    return row


def _note_loss(tx: Transaction, endpoint: Endpoint) -> None:
    """A network that was made for a lease may have lost the last that kept it."""
    key = (endpoint.namespace, endpoint.network)
    if LEASED in labels.get(tx, _KIND, *key):
        tx.execute("INSERT INTO gc_log (namespace, name, lost) VALUES (?, ?, 1)", key)


def _kept(wanted: Mapping[str, str], lease: str) -> dict[str, str]:
    kept = {key: value for key, value in wanted.items() if value}
    return {**kept, LEASED: lease} if lease else kept


def _check_unused(tx: Transaction, network: Network, dead: Dead | None) -> None:
    if dead is not None and not dead(tx, network.namespace, network.id):
        raise FailedPrecondition(f'network "{network.name}" is kept')
    rows = tx.all(
        "SELECT container FROM network_endpoints WHERE network = ? LIMIT 3", (network.id,)
    )
    if rows:
        who = ", ".join(f'"{row["container"]}"' for row in rows)
        raise FailedPrecondition(
            f'network "{network.name}" is used by {who}: disconnect or stop them first'
        )


def _insert(tx: Transaction, made: Network) -> None:
    try:
        tx.execute(
            "INSERT INTO networks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (made.id, made.namespace, made.name, made.driver, made.bridge, int(made.internal),
             made.mtu, made.created_at, made.mode),
        )  # fmt: skip
    except sqlite3.IntegrityError:
        raise AlreadyExists(f'interface "{made.bridge}" of another network') from None
    tx.executemany(
        "INSERT INTO network_subnets VALUES (?, ?, ?, ?, '', ?, ?)",
        [
            (
                made.id,
                each.version,
                each.subnet,
                each.gateway,
                each.ip_range,
                json.dumps(each.reserved),
            )
            for each in made.subnets
        ],
    )
    labels.replace(tx, _KIND, made.namespace, made.id, made.labels)


def _network(tx: Transaction, row: sqlite3.Row) -> Network:
    subnets = tx.all(
        "SELECT * FROM network_subnets WHERE network = ? ORDER BY family",
        (row["id"],),
    )
    return Network(
        id=row["id"],
        namespace=row["namespace"],
        name=row["name"],
        driver=row["driver"],
        bridge=row["bridge"],
        mode=row["mode"],
        internal=bool(row["internal"]),
        mtu=row["mtu"],
        subnets=tuple(map(_subnet, subnets)),
        labels=labels.get(tx, _KIND, row["namespace"], row["id"]),
        created_at=row["created_at"],
    )


def _subnet(row: sqlite3.Row) -> Subnet:
    reserved = json.loads(row["reserved"])
    return Subnet(row["subnet"], row["gateway"], row["ip_range"], reserved)


def _choose(
    tx: Transaction,
    network: Network,
    subnet: Subnet,
    asked: dict[int, str],
    others: Collection[str],
) -> str:
    key = (network.id, subnet.version)
    row = tx.one("SELECT last FROM network_subnets WHERE network = ? AND family = ?", key)
    assert row is not None
    mark = "%:%" if subnet.version == 6 else "%.%"
    rows = tx.all(
        "SELECT address FROM network_addresses WHERE network = ? AND address LIKE ?",
        (network.id, mark),
    )
    inside = ipaddress.ip_network(subnet.subnet)
    taken = {each["address"] for each in rows}
    taken |= {each for each in others if ipaddress.ip_address(each) in inside}
    chosen = pools.choose(subnet, taken, row["last"], asked[subnet.version])
    if not asked[subnet.version]:
        tx.execute(
            "UPDATE network_subnets SET last = ? WHERE network = ? AND family = ?", (chosen, *key)
        )
    return chosen


def _endpoint(row: sqlite3.Row, addresses: Sequence[str]) -> Endpoint:
    return Endpoint(
        namespace=row["namespace"],
        container=row["container"],
        network=row["network"],
        position=row["position"],
        link=row["link"],
        inside=row["inside"],
        mac=row["mac"],
        aliases=tuple(json.loads(row["aliases"])),
        addresses=tuple(addresses),
        rates=Rates(rate_in=row["rate_in"], rate_out=row["rate_out"], burst=row["burst"]),
    )


def _digest(network: Network, of: str) -> bytes:
    text = f"{network.id}/{network.namespace}/{of}"
    return hashlib.sha256(text.encode()).digest()


def _link(network: Network, container: str) -> str:
    """The same for the same container, so that what a crash has left is found."""
    return f"veth{_digest(network, container).hex()[:11]}"


def _check_driver(wanted: Network) -> None:
    if wanted.driver in uplink.DRIVERS:
        uplink.check(wanted)
    elif not wanted.is_bridge:
        known = ", ".join(("bridge", *uplink.DRIVERS))
        raise InvalidArgument(f'network driver "{wanted.driver}" is none of {known}')
    elif wanted.mode:
        raise InvalidArgument("a bridge network has no mode")


def _mac_of(network: Network, container: str, wish: Wish, addresses: Sequence[str]) -> str:
    """The same for the same container; on a bridge, the same for the same address.

    There whoever knew it of another container knows it of this one: it could not be told, as the
    bridge takes nothing yet from a cable that is just being plugged in.
    """
    if network.driver == "ipvlan":
        if wish.mac:
            raise InvalidArgument(
                "on an ipvlan network a container has its parent's hardware address"
            )
        return ""
    digest = _digest(network, addresses[0] if network.is_bridge else container)
    return wish.mac or ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))
