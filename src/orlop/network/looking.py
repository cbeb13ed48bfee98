"""Look at what is in a network namespace; for the worker alone."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orlop.network.model import Counters, Link, Neighbour
from orlop.network.operations import Route, Rule
from orlop.network.sockets import Namespaces

_MAIN_TABLE, _LOCAL_TABLE = 254, 255
_UNICAST = 1
_CLONED = 0x200
_NOARP, _PERMANENT = 0x40, 0x80
_INTERRUPTED, _TRIES = 0x10, 5


def links(namespaces: Namespaces, ns: str) -> list[Link]:
    """All interfaces, by number."""
    netlink = namespaces.netlink(ns)
    addresses: dict[int, list[str]] = {}
    for each in every(netlink.get_addr):
        addresses.setdefault(each["index"], []).append(address(each))
    found = every(netlink.get_links)
    names = {each["index"]: each.get("ifname") for each in found}
    return [
        link(each, names, addresses.get(each["index"], ()))
        for each in sorted(found, key=lambda x: x["index"])
    ]


def address(each: Any) -> str:
    """The kernel's message of an address, with prefix."""
    return f"{each.get('local') or each.get('address')}/{each['prefixlen']}"


def link(each: Any, names: Mapping[int, str], addresses: Iterable[str]) -> Link:
    """The kernel's message of an interface; `names` are those of all, by number."""
    info = each.get("linkinfo")
    counted = each.get("stats64") or {}
    return Link(
        index=each["index"],
        name=each.get("ifname"),
        kind=(info.get("kind") if info else "") or "",
        up=each.get("state") == "up",
        state=(each.get("operstate") or "").lower(),
        mtu=each.get("mtu") or 0,
        mac=each.get("address") or "",
        alias=each.get("ifalias") or "",
        master=names.get(each.get("master") or 0, ""),
        parent=each.get("link") or 0,
        addresses=tuple(addresses),
        counters=Counters(
            **{name: int(counted.get(name) or 0) for name in Counters.__struct_fields__}
        ),
    )


def routes(namespaces: Namespaces, ns: str) -> list[Route]:
    """The routes to other hosts, of all tables; not those of the kernel's own table."""
    netlink = namespaces.netlink(ns)
    names = {each["index"]: each.get("ifname") for each in every(netlink.get_links)}
    found = (*every(netlink.get_routes, family=2), *every(netlink.get_routes, family=10))
    return [made for each in found if (made := route(each, names)) is not None]


def route(each: Any, names: Mapping[int, str]) -> Route | None:
    """The kernel's message of a route; None for one that is its own business."""
    table = each.get("table") or each["table"]
    own = table == _LOCAL_TABLE or each["type"] != _UNICAST or each["flags"] & _CLONED
    if own or each["family"] not in (socket.AF_INET, socket.AF_INET6):
        return None
    everywhere = "0.0.0.0" if each["family"] == socket.AF_INET else "::"
    return Route(
        destination=f"{each.get('dst') or everywhere}/{each['dst_len']}",
        gateway=each.get("gateway") or "",
        link=names.get(each.get("oif"), ""),
        source=each.get("prefsrc") or "",
        metric=each.get("priority") or 0,
        table=0 if table == _MAIN_TABLE else table,
    )


def neighbours(namespaces: Namespaces, ns: str) -> list[Neighbour]:
    """Those whose address of hardware is known; not multicast, which is reckoned."""
    netlink = namespaces.netlink(ns)
    names = {each["index"]: each.get("ifname") for each in every(netlink.get_links)}
    return [
        Neighbour(
            link=names.get(each["ifindex"], ""),
            address=each.get("dst"),
            mac=each.get("lladdr") or "",
            permanent=bool(each["state"] & _PERMANENT),
        )
        for each in every(netlink.get_neighbours)
        if each.get("lladdr") and each.get("dst") and not each["state"] & _NOARP
    ]


def rules(namespaces: Namespaces, ns: str) -> list[Rule]:
    """The rules of policy routing, of both families; not the kernel's own three."""
    found = []
    for number, family in ((4, 2), (6, 10)):
        for each in every(namespaces.netlink(ns).get_rules, family=family):
            priority = each.get("priority") or 0
            if priority in (0, 32766, 32767):
                continue
            found.append(
                Rule(
                    priority=priority,
                    table=each.get("table") or each["table"],
                    source=_prefix(each, "src"),
                    destination=_prefix(each, "dst"),
                    mark=each.get("fwmark") or 0,
                    family=number,
                )
            )
    return found


def _prefix(each: Any, side: str) -> str:
    address = each.get(side)
    return f"{address}/{each[f'{side}_len']}" if address else ""


def every(ask: Callable[..., Iterable[Any]], **which: int) -> list[Any]:
    """What the kernel answers; it is asked again where some may be missing, for what came or went.

    See NLM_F_DUMP_INTR (linux/netlink.h).
    """
    for _ in range(_TRIES):
        found = list(ask(**which))
        if not any(each["header"]["flags"] & _INTERRUPTED for each in found):
            break
    return found
