"""Make, change, move and delete interfaces; for the worker alone."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from orlop.errors import InvalidArgument
from orlop.network import failures, tuntap
from orlop.network import operations as op
from orlop.network.remembering import Interface
from orlop.network.sockets import Namespaces

Undo = list[Callable[[], object]]
"""What undoes the operations so far, the last one last; what fails half way has said it before."""
_MODES = {
    "macvlan": {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8},
    "ipvlan": {"l2": 0, "l3": 1, "l3s": 2},
}
_LEAST_MTU6 = 1280
_TAKES_ALONG = {"mtu", "address", "master", "ifname"}


def add_link(namespaces: Namespaces, each: op.AddLink, undo: Undo) -> None:
    netlink = namespaces.netlink(each.ns)
    after: dict[str, Any] = {}  # what a kernel takes only of one that is there
    try:
        if each.kind in tuntap.KINDS:
            after = _common(namespaces, each)
            with namespaces.inside(each.ns):
                tuntap.make(each.name, each.kind)
        else:
            netlink.link("add", ifname=each.name, kind=each.kind, **_of_kind(namespaces, each))
    except (NetlinkError, OSError) as error:
        if _number(error) == errno.EEXIST and each.exist_ok:
            _check_kind(namespaces, each)
            return
        raise
    undo.append(lambda: netlink.link("del", index=namespaces.index(each.ns, each.name)))
    if each.alias:
        after["ifalias"] = each.alias
    if after:
        netlink.link("set", index=namespaces.index(each.ns, each.name), **after)
    if each.hairpin:
        netlink.brport("set", index=namespaces.index(each.ns, each.name), mode=1)


def _number(error: NetlinkError | OSError) -> int | None:
    return error.code if isinstance(error, NetlinkError) else error.errno


def _common(namespaces: Namespaces, each: op.AddLink) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if each.mtu:
        found["mtu"] = each.mtu
    if each.mac:
        found["address"] = each.mac
    if each.master:
        found["master"] = namespaces.index(each.ns, each.master)
    if each.up:
        found["state"] = "up"
    return found


def _of_kind(namespaces: Namespaces, each: op.AddLink) -> dict[str, Any]:
    found = _common(namespaces, each)
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
    if kind == "tun":
        kind = tuntap.kind(found["ifi_type"])
    if kind != each.kind:
        raise failures.error(f"{each.about}, where {kind or 'hardware'} is", each.ns, errno.EEXIST)


def delete_link(namespaces: Namespaces, each: op.DeleteLink, undo: Undo) -> None:
    try:
        index = namespaces.index(each.ns, each.name)
        namespaces.netlink(each.ns).link("del", index=index)
    except (OSError, NetlinkError) as error:
        if not (each.missing_ok and _number(error) in (errno.ENODEV, errno.ENOENT)):
            raise


def set_link(namespaces: Namespaces, each: op.SetLink, undo: Undo) -> None:
    index = namespaces.index(each.ns, each.name)
    new: dict[str, Any] = {}
    if each.mtu is not None:
        new["mtu"] = each.mtu
    if each.mac is not None:
        new["address"] = each.mac
    if each.master is not None:
        new["master"] = namespaces.index(each.ns, each.master) if each.master else 0
    if each.alias is not None:
        new["ifalias"] = each.alias
    if each.rename is not None:
        new["ifname"] = each.rename
    if each.up is not None:
        new["state"] = "up" if each.up else "down"
    before = _values(namespaces, each.ns, index)
    loses = new.get("state") == "down" or new.keys() & _TAKES_ALONG
    without6 = new.get("mtu", _LEAST_MTU6) < _LEAST_MTU6  # which takes its sysctls of IPv6 away
    memory = Interface(namespaces, each.ns, each.name, sysctls=without6) if loses else None

    def back() -> None:
        _change_back(namespaces, each.ns, index, before)
        if memory is not None:
            memory.restore_sysctls()
            memory.restore()

    undo.append(back)  # the kernel keeps what it did before it refused the rest
    _change(namespaces, each.ns, index, new)


def _values(namespaces: Namespaces, ns: str, index: int) -> dict[str, Any]:
    """What `set_link` may change."""
    found = namespaces.netlink(ns).link("get", index=index)[0]
    names = ("mtu", "address", "ifname")
    return {
        **{name: found.get(name) for name in names},
        "ifalias": found.get("ifalias") or "",
        "master": found.get("master") or 0,
        "state": found.get("state") or "down",
    }


def _change(namespaces: Namespaces, ns: str, index: int, values: dict[str, Any]) -> None:
    """What is to be down is so first: some that are up take no other name, or no address."""
    netlink, rest = namespaces.netlink(ns), dict(values)
    if rest.get("state") == "down":
        netlink.link("set", index=index, state=rest.pop("state"))
    if rest:
        netlink.link("set", index=index, **rest)


def _change_back(namespaces: Namespaces, ns: str, index: int, before: dict[str, Any]) -> None:
    now = _values(namespaces, ns, index)
    different = {name: value for name, value in before.items() if now[name] != value}
    _change(namespaces, ns, index, different)


def move_link(namespaces: Namespaces, each: op.MoveLink, undo: Undo) -> None:
    there = each.rename or each.name
    source, target = namespaces.file(each.ns), namespaces.file(each.to)
    index = namespaces.index(each.ns, each.name)
    before = _values(namespaces, each.ns, index)
    memory = Interface(namespaces, each.ns, each.name, sysctls=True)

    def move_back(name: str, **values: Any) -> None:
        values |= {"net_ns_fd": source, "ifname": each.name}
        found = namespaces.index(each.to, name)
        namespaces.netlink(each.to).link("set", index=found, **values)

    def back(name: str) -> None:
        try:
            move_back(name, new_ifindex=index)
        except NetlinkError:  # another has that number by now
            move_back(name)
        memory.restore_sysctls()
        _change_back(namespaces, each.ns, namespaces.index(each.ns, each.name), before)
        memory.restore()

    new = {"ifname": there} if each.rename else {}
    try:
        namespaces.netlink(each.ns).link("set", index=index, net_ns_fd=target, **new)
    except NetlinkError:
        if not _has(namespaces, each.ns, index):  # it was moved, and then refused its new name
            undo.append(partial(back, each.name))
        raise
    undo.append(partial(back, there))


def _has(namespaces: Namespaces, ns: str, index: int) -> bool:
    with namespaces.inside(ns):
        try:
            socket.if_indextoname(index)
        except OSError:
            return False
    return True
