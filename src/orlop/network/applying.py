"""Apply operations to the kernel, whole or not at all; for the worker alone.

Each operation has a function that does it and says what undoes it: as far as the kernel takes
along more than it was asked to, by what was there before.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from orlop.errors import FailedPrecondition, InvalidArgument, OrlopError
from orlop.network import failures, interfaces, objects, sysctls
from orlop.network import operations as op
from orlop.network.interfaces import Undo
from orlop.network.progress import Progress
from orlop.network.remembering import Interface
from orlop.network.rtnetlink import APPEND, REPLACE, Message, Rtnetlink
from orlop.network.sockets import Namespaces

_NUD_PERMANENT = 0x80
_NODAD = 0x02
_MAIN_TABLE = 254
_METRIC6 = 1024  # the kernel's choice
_ROOT = 0xFFFFFFFF
_LEAST_BITS, _MOST_BITS = 8, 34_000_000_000  # the kernel counts bytes, up to 2**32
_LEAST_BURST, _MOST_BURST = 64 << 10, 256 << 20


def apply(namespaces: Namespaces, wanted: Sequence[op.AnyOperation], progress: Progress) -> None:
    """Do all of `wanted` in order; on an error undo what was done, and raise it."""
    _check(wanted)
    undo: Undo = []
    number = 0
    try:
        for number, each in enumerate(wanted):
            progress.begin(number)
            _do(namespaces, each, undo)
            progress.end(number)
    except BaseException as failure:
        progress.undo(number)
        problems = _rolled_back(undo)
        progress.clear()
        if problems and isinstance(failure, OrlopError):
            raise type(failure)(f"{failure.message}; and undoing: {problems}") from failure
        raise


def _rolled_back(undo: Undo) -> str:
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


def _do(namespaces: Namespaces, each: op.AnyOperation, undo: Undo) -> None:
    """Do one operation; errors name it."""
    try:
        _ACTIONS[type(each)](namespaces, each, undo)
    except NetlinkError as error:
        raise failures.error(each.about, each.ns, error.code) from None
    except OSError as error:
        about = f"{each.about}: {error.filename}" if error.filename else each.about
        raise failures.error(about, each.ns, error.errno or errno.EIO) from None
    except ValueError as error:
        raise InvalidArgument(f"{each.about}: {error}") from None


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


def _add_address(namespaces: Namespaces, each: op.AddAddress, undo: Undo) -> None:
    try:
        _address(namespaces, each, "add")
    except NetlinkError as error:
        if error.code == errno.EEXIST and each.exist_ok:
            return
        raise
    undo.append(lambda: _address(namespaces, each, "del"))


def _delete_address(namespaces: Namespaces, each: op.DeleteAddress, undo: Undo) -> None:
    before = Interface(namespaces, each.ns, each.link)  # secondaries and routes may go with it
    _address(namespaces, each, "del")
    undo.append(before.restore)


def _neighbour(
    namespaces: Namespaces,
    each: op.AddNeighbour | op.DeleteNeighbour,
    action: str,
    **values: Any,
) -> None:
    address = ipaddress.ip_address(each.address)
    index = namespaces.index(each.ns, each.link)
    namespaces.netlink(each.ns).neigh(action, ifindex=index, dst=str(address), **values)


def _add_neighbour(namespaces: Namespaces, each: op.AddNeighbour, undo: Undo) -> None:
    _neighbour(namespaces, each, "add", lladdr=each.mac, state=_NUD_PERMANENT)
    undo.append(lambda: _neighbour(namespaces, each, "del"))


def _delete_neighbour(namespaces: Namespaces, each: op.DeleteNeighbour, undo: Undo) -> None:
    raw, index = namespaces.raw(each.ns), namespaces.index(each.ns, each.link)
    with _all_of(raw, lambda: objects.neighbours(raw, index, each.address), undo, REPLACE):
        _neighbour(namespaces, each, "del")


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


def _add_route(namespaces: Namespaces, each: op.AddRoute, undo: Undo) -> None:
    try:
        _route(namespaces, each.ns, each.route, "add")
    except NetlinkError as error:
        if error.code == errno.EEXIST and each.exist_ok:
            return
        raise
    route = each.route
    if not route.metric and ":" in route.destination:
        route = msgspec.structs.replace(route, metric=_METRIC6)
    undo.append(lambda: _route(namespaces, each.ns, route, "del"))


def _delete_route(namespaces: Namespaces, each: op.DeleteRoute, undo: Undo) -> None:
    raw, table, to = namespaces.raw(each.ns), each.route.table, each.route.destination
    with _all_of(raw, lambda: objects.routes(raw, table=table or _MAIN_TABLE, to=to), undo):
        _route(namespaces, each.ns, each.route, "del")


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


def _add_rule(namespaces: Namespaces, each: op.AddRule, undo: Undo) -> None:
    raw = namespaces.raw(each.ns)
    with _all_of(raw, lambda: objects.rules(raw, each.rule.family), undo):
        _rule(namespaces, each.ns, each.rule, "add")


def _delete_rule(namespaces: Namespaces, each: op.DeleteRule, undo: Undo) -> None:
    raw = namespaces.raw(each.ns)
    with _all_of(raw, lambda: objects.rules(raw, each.rule.family), undo):
        _rule(namespaces, each.ns, each.rule, "del")


def _add_rate_limit(namespaces: Namespaces, each: op.AddRateLimit, undo: Undo) -> None:
    if not _LEAST_BITS <= each.rate <= _MOST_BITS:
        raise ValueError(f"{each.rate} bits in a second are not {_LEAST_BITS} to {_MOST_BITS}")
    index = namespaces.index(each.ns, each.link)
    burst = each.burst or max(each.rate // 8 // 10, _LEAST_BURST)
    namespaces.netlink(each.ns).tc(
        "add",
        index=index,
        kind="tbf",
        rate=each.rate // 8,
        burst=min(burst, _MOST_BURST),
        latency="100ms",
    )
    undo.append(lambda: _drop_limit(namespaces, each))


def _drop_limit(namespaces: Namespaces, each: op.AddRateLimit | op.DeleteRateLimit) -> None:
    index = namespaces.index(each.ns, each.link)
    namespaces.netlink(each.ns).tc("del", index=index, parent=_ROOT)


def _delete_rate_limit(namespaces: Namespaces, each: op.DeleteRateLimit, undo: Undo) -> None:
    raw, index = namespaces.raw(each.ns), namespaces.index(each.ns, each.link)
    if not objects.limits(raw, index):  # another's way of queueing is none
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    with _all_of(raw, lambda: objects.limits(raw, index), undo):
        _drop_limit(namespaces, each)


@contextmanager
def _all_of(
    raw: Rtnetlink, found: Callable[[], list[Message]], undo: Undo, how: int = APPEND
) -> Iterator[None]:
    """Undo a change by what was there before: of several the kernel chooses which one goes."""
    before = found()
    yield
    after = found()

    def back() -> None:
        problems = objects.exchange(raw, after, before, how)
        if problems:
            raise FailedPrecondition(", ".join(problems))

    undo.append(back)


_ACTIONS: dict[type, Callable[[Namespaces, Any, Undo], None]] = {
    op.AddLink: interfaces.add_link,
    op.DeleteLink: interfaces.delete_link,
    op.SetLink: interfaces.set_link,
    op.MoveLink: interfaces.move_link,
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
    op.SetSysctl: sysctls.set_sysctl,
}
