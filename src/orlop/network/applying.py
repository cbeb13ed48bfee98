"""Apply operations to the kernel, whole or not at all; for the worker alone.

Each operation has a function that does it and returns what undoes it, None if nothing was done.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from orlop.errors import InvalidArgument, OrlopError
from orlop.network import failures
from orlop.network import operations as op
from orlop.network.sockets import Namespaces

Undo = Callable[[], object] | None
_NUD_PERMANENT = 0x80
_NODAD = 0x02
_MAIN_TABLE = 254
_ROOT = 0xFFFFFFFF
_LEAST_BITS, _MOST_BITS = 8, 34_000_000_000  # the kernel counts bytes, up to 2**32
_LEAST_BURST, _MOST_BURST = 64 << 10, 256 << 20
_EXTERNAL = ("tun", "tap")
_MODES = {
    "macvlan": {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8},
    "ipvlan": {"l2": 0, "l3": 1, "l3s": 2},
}


def apply(namespaces: Namespaces, wanted: Sequence[op.AnyOperation]) -> None:
    """Do all of `wanted` in order; on an error undo what was done, and raise it."""
    _check(wanted)
    undo: list[Callable[[], object]] = []
    try:
        for each in wanted:
            done = _do(namespaces, each)
            if done is not None:
                undo.append(done)
    except BaseException as failure:
        problems = _rolled_back(undo)
        if problems and isinstance(failure, OrlopError):
            raise type(failure)(f"{failure.message}; and undoing: {problems}") from failure
        raise


def _rolled_back(undo: list[Callable[[], object]]) -> str:
    """Undo all, newest first; what went wrong with that."""
    problems = []
    for each in reversed(undo):
        try:
            each()
        except (NetlinkError, OSError, OrlopError) as error:
            problems.append(str(error))
    return ", ".join(problems)


def _check(wanted: Sequence[op.AnyOperation]) -> None:
    final = False
    for each in wanted:
        if final and not isinstance(each, op.DeleteLink):
            raise InvalidArgument(
                f"{each.about} after the deletion of an interface, which cannot be undone"
            )
        final = final or isinstance(each, op.DeleteLink)
        for name in _names(each):
            check_name(name)
        if isinstance(each, op.AddLink) and each.kind not in op.KINDS:
            raise InvalidArgument(
                f'{each.about}: kind "{each.kind}" is none of {", ".join(op.KINDS)}'
            )


def _names(each: op.AnyOperation) -> list[str]:
    match each:
        case op.AddLink():
            return [each.name, *filter(None, [each.peer])]
        case op.SetLink() | op.MoveLink() if each.rename:
            return [each.rename]
        case _:
            return []


def check_name(name: str) -> None:
    """Raise InvalidArgument for what can be no interface's name."""
    bad = not name or name in (".", "..") or any(c in "/: \t\n%" for c in name)
    if bad or not name.isprintable():
        raise InvalidArgument(f'"{name}" can be no name of an interface')
    if len(name.encode()) > op.LINK_NAME_MAX:
        raise InvalidArgument(f'interface name "{name}" is longer than {op.LINK_NAME_MAX} bytes')


def _do(namespaces: Namespaces, each: op.AnyOperation) -> Undo:
    """Do one operation; errors name it."""
    try:
        return _ACTIONS[type(each)](namespaces, each)
    except NetlinkError as error:
        raise failures.error(each.about, each.ns, error.code) from None
    except OSError as error:
        about = f"{each.about}: {error.filename}" if error.filename else each.about
        raise failures.error(about, each.ns, error.errno or errno.EIO) from None
    except ValueError as error:
        raise InvalidArgument(f"{each.about}: {error}") from None


# Interfaces


def _add_link(namespaces: Namespaces, each: op.AddLink) -> Undo:
    netlink = namespaces.netlink(each.ns)
    try:
        if each.kind in _EXTERNAL:
            _add_tuntap(namespaces, each)
        else:
            netlink.link("add", ifname=each.name, kind=each.kind, **_of_kind(namespaces, each))
    except NetlinkError as error:
        if error.code == errno.EEXIST and each.exist_ok:
            _check_kind(namespaces, each)
            return None
        raise

    def undo() -> None:
        netlink.link("del", index=namespaces.index(each.ns, each.name))

    try:
        if each.alias:  # what a kernel takes only of one that is there
            netlink.link("set", index=namespaces.index(each.ns, each.name), ifalias=each.alias)
        if each.hairpin:
            netlink.brport("set", index=namespaces.index(each.ns, each.name), mode=1)
    except BaseException:
        undo()
        raise
    return undo


def _add_tuntap(namespaces: Namespaces, each: op.AddLink) -> None:
    """These are made by the device's file, of the namespace in which it is opened."""
    with namespaces.inside(each.ns):
        namespaces.netlink(each.ns).link("add", ifname=each.name, kind="tuntap", mode=each.kind)
    changes = {**_common(namespaces, each), **({"state": "up"} if each.up else {})}
    if changes:
        index = namespaces.index(each.ns, each.name)
        namespaces.netlink(each.ns).link("set", index=index, **changes)


def _common(namespaces: Namespaces, each: op.AddLink) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if each.mtu:
        found["mtu"] = each.mtu
    if each.mac:
        found["address"] = each.mac
    if each.master:
        found["master"] = namespaces.index(each.ns, each.master)
    return found


def _of_kind(namespaces: Namespaces, each: op.AddLink) -> dict[str, Any]:
    found = _common(namespaces, each)
    if each.up:
        found["state"] = "up"
    parent = namespaces.index(each.ns, each.parent) if each.parent else 0
    match each.kind:
        case "veth":
            peer: dict[str, Any] = {"ifname": each.peer or f"{each.name[:13]}-p"}
            if each.peer_ns != each.ns:
                peer["net_ns_fd"] = namespaces.file(each.peer_ns)
            if each.peer_mac:
                peer["address"] = each.peer_mac
            if each.mtu:
                peer["mtu"] = each.mtu
            found["peer"] = peer
        case "vxlan":
            found["vxlan_id"] = each.id
            values = {"remote": each.remote, "local": each.local, "port": each.port}
            found |= {f"vxlan_{name}": value for name, value in values.items() if value}
            if each.remote:
                found["vxlan_group"] = found.pop("vxlan_remote")
            if parent:
                found["vxlan_link"] = parent
        case "macvlan" | "ipvlan":
            found["link"] = parent
            if each.mode:
                found[f"{each.kind}_mode"] = _mode(each)
        case "vlan":
            found |= {"link": parent, "vlan_id": each.id}
    return found


def _mode(each: op.AddLink) -> int:
    known = _MODES[each.kind]
    if each.mode not in known:
        raise InvalidArgument(f'{each.about}: mode "{each.mode}" is none of {", ".join(known)}')
    return known[each.mode]


def _check_kind(namespaces: Namespaces, each: op.AddLink) -> None:
    found = namespaces.netlink(each.ns).link("get", ifname=each.name)[0]
    info = found.get("linkinfo")
    kind = info.get("kind") if info else ""
    if kind != each.kind:
        raise failures.error(f"{each.about}, where {kind or 'hardware'} is", each.ns, errno.EEXIST)


def _delete_link(namespaces: Namespaces, each: op.DeleteLink) -> Undo:
    try:
        index = namespaces.index(each.ns, each.name)
        namespaces.netlink(each.ns).link("del", index=index)
    except (OSError, NetlinkError) as error:
        number = error.code if isinstance(error, NetlinkError) else error.errno
        if not (each.missing_ok and number in (errno.ENODEV, errno.ENOENT)):
            raise
    return None


def _set_link(namespaces: Namespaces, each: op.SetLink) -> Undo:
    netlink = namespaces.netlink(each.ns)
    index = namespaces.index(each.ns, each.name)
    new: dict[str, Any] = {}
    old: dict[str, Any] = {}
    before = netlink.link("get", index=index)[0]
    if each.mtu is not None:
        new["mtu"], old["mtu"] = each.mtu, before.get("mtu")
    if each.mac is not None:
        new["address"], old["address"] = each.mac, before.get("address")
    if each.master is not None:
        new["master"] = namespaces.index(each.ns, each.master) if each.master else 0
        old["master"] = before.get("master") or 0
    if each.alias is not None:
        new["ifalias"], old["ifalias"] = each.alias, before.get("ifalias") or ""
    if each.rename is not None:
        new["ifname"], old["ifname"] = each.rename, each.name
    if each.up is not None:
        new["state"] = "up" if each.up else "down"
        old["state"] = before.get("state") or "down"
    netlink.link("set", index=index, **new)
    return lambda: netlink.link("set", index=index, **old)


def _move_link(namespaces: Namespaces, each: op.MoveLink) -> Undo:
    there = each.rename or each.name
    source, target = namespaces.file(each.ns), namespaces.file(each.to)
    index = namespaces.index(each.ns, each.name)
    name = {"ifname": there} if each.rename else {}
    namespaces.netlink(each.ns).link("set", index=index, net_ns_fd=target, **name)

    def undo() -> None:
        namespaces.netlink(each.to).link(
            "set", index=namespaces.index(each.to, there), net_ns_fd=source, ifname=each.name
        )

    return undo


# Addresses, neighbours


def _address(namespaces: Namespaces, each: op.AddAddress | op.DeleteAddress, action: str) -> None:
    address = ipaddress.ip_interface(each.address)
    options: dict[str, Any] = {}
    if action == "add" and address.version == 6:
        options["flags"] = _NODAD  # it is ours: the pool has said so
    namespaces.netlink(each.ns).addr(
        action,
        index=namespaces.index(each.ns, each.link),
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
        **options,
    )


def _add_address(namespaces: Namespaces, each: op.AddAddress) -> Undo:
    try:
        _address(namespaces, each, "add")
    except NetlinkError as error:
        if error.code == errno.EEXIST and each.exist_ok:
            return None
        raise
    return lambda: _address(namespaces, each, "del")


def _delete_address(namespaces: Namespaces, each: op.DeleteAddress) -> Undo:
    _address(namespaces, each, "del")
    return lambda: _address(namespaces, each, "add")


def _neighbour(
    namespaces: Namespaces, each: op.AddNeighbour | op.DeleteNeighbour, action: str
) -> None:
    address = ipaddress.ip_address(each.address)
    values: dict[str, Any] = {"dst": str(address)}
    if action == "add":
        values |= {"lladdr": each.mac, "state": _NUD_PERMANENT}
    namespaces.netlink(each.ns).neigh(
        action, ifindex=namespaces.index(each.ns, each.link), **values
    )


def _add_neighbour(namespaces: Namespaces, each: op.AddNeighbour) -> Undo:
    _neighbour(namespaces, each, "add")
    return lambda: _neighbour(namespaces, each, "del")


def _delete_neighbour(namespaces: Namespaces, each: op.DeleteNeighbour) -> Undo:
    _neighbour(namespaces, each, "del")
    return (lambda: _neighbour(namespaces, each, "add")) if each.mac else None


# Routes, rules


def _route(namespaces: Namespaces, ns: str, route: op.Route, action: str) -> None:
    destination = ipaddress.ip_network(route.destination)
    values: dict[str, Any] = {
        "dst": str(destination),
        "family": 2 if destination.version == 4 else 10,
        "table": route.table or _MAIN_TABLE,
    }
    if route.gateway:
        values["gateway"] = str(ipaddress.ip_address(route.gateway))
    if route.source:
        values["prefsrc"] = str(ipaddress.ip_address(route.source))
    if route.metric:
        values["priority"] = route.metric
    if route.link:
        values["oif"] = namespaces.index(ns, route.link)
        if not route.gateway and destination.version == 4:
            values["scope"] = 253  # link
    namespaces.netlink(ns).route(action, **values)


def _add_route(namespaces: Namespaces, each: op.AddRoute) -> Undo:
    try:
        _route(namespaces, each.ns, each.route, "add")
    except NetlinkError as error:
        if error.code == errno.EEXIST and each.exist_ok:
            return None
        raise
    return lambda: _route(namespaces, each.ns, each.route, "del")


def _delete_route(namespaces: Namespaces, each: op.DeleteRoute) -> Undo:
    _route(namespaces, each.ns, each.route, "del")
    return lambda: _route(namespaces, each.ns, each.route, "add")


def _rule(namespaces: Namespaces, ns: str, rule: op.Rule, action: str) -> None:
    values: dict[str, Any] = {
        "priority": rule.priority,
        "table": rule.table,
        "family": 2 if rule.family == 4 else 10,
    }
    for key, text in (("src", rule.source), ("dst", rule.destination)):
        if text:
            network = ipaddress.ip_network(text)
            values |= {key: str(network.network_address), f"{key}_len": network.prefixlen}
    if rule.mark:
        values["fwmark"] = rule.mark
    namespaces.netlink(ns).rule(action, **values)


def _add_rule(namespaces: Namespaces, each: op.AddRule) -> Undo:
    _rule(namespaces, each.ns, each.rule, "add")
    return lambda: _rule(namespaces, each.ns, each.rule, "del")


def _delete_rule(namespaces: Namespaces, each: op.DeleteRule) -> Undo:
    _rule(namespaces, each.ns, each.rule, "del")
    return lambda: _rule(namespaces, each.ns, each.rule, "add")


def _rate_limit(
    namespaces: Namespaces, each: op.AddRateLimit | op.DeleteRateLimit, action: str
) -> None:
    values: dict[str, Any] = {"index": namespaces.index(each.ns, each.link)}
    if action == "add":
        if not _LEAST_BITS <= each.rate <= _MOST_BITS:
            raise ValueError(f"{each.rate} bits in a second are not {_LEAST_BITS} to {_MOST_BITS}")
        least = max(each.rate // 8 // 10, _LEAST_BURST)
        burst = min(each.burst or least, _MOST_BURST)
        values |= {"kind": "tbf", "rate": each.rate // 8, "burst": burst, "latency": "100ms"}
    else:
        values["parent"] = _ROOT
    namespaces.netlink(each.ns).tc(action, **values)


def _add_rate_limit(namespaces: Namespaces, each: op.AddRateLimit) -> Undo:
    _rate_limit(namespaces, each, "add")
    return lambda: _rate_limit(namespaces, each, "del")


def _delete_rate_limit(namespaces: Namespaces, each: op.DeleteRateLimit) -> Undo:
    _rate_limit(namespaces, each, "del")
    return (lambda: _rate_limit(namespaces, each, "add")) if each.rate else None


def _set_sysctl(namespaces: Namespaces, each: op.SetSysctl) -> Undo:
    before = namespaces.read_sysctl(each.ns, each.name)
    if before == each.value:
        return None
    namespaces.write_sysctl(each.ns, each.name, each.value)
    return lambda: namespaces.write_sysctl(each.ns, each.name, before)


_ACTIONS: dict[type, Callable[[Namespaces, Any], Undo]] = {
    op.AddLink: _add_link,
    op.DeleteLink: _delete_link,
    op.SetLink: _set_link,
    op.MoveLink: _move_link,
    op.AddAddress: _add_address,
    op.DeleteAddress: _delete_address,
    op.AddRoute: _add_route,
    op.DeleteRoute: _delete_route,
    op.AddNeighbour: _add_neighbour,
    op.DeleteNeighbour: _delete_neighbour,
    op.AddRule: _add_rule,
    op.DeleteRule: _delete_rule,
    op.AddRateLimit: _add_rate_limit,
    op.DeleteRateLimit: _delete_rate_limit,
    op.SetSysctl: _set_sysctl,
}
