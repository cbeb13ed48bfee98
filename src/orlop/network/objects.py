"""What an interface has, as the messages that make it again; for the worker alone."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace

from orlop.network.rtnetlink import (
    APPEND,
    Kind,
    Message,
    Rtnetlink,
    decode_attributes,
    encode_attributes,
    number,
    pack,
)

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_BRIDGE = 7
# Attributes and flags, as linux/if_addr.h, rtnetlink.h, neighbour.h and if_link.h number them.
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_FLAGS = 1, 2, 3, 8
_NODAD, _UNPROVEN = 0x02, 0x48
_SCOPE_LINK = 253
_RTA_DST, _RTA_OIF, _RTA_CACHE, _RTA_TABLE, _RTA_NEXTHOP = 1, 4, 12, 15, 30
_ONLINK = 0x4
_OWN_TABLE = 255
_COME_BY_THEMSELVES = (1, 9)  # routes of redirects and of routers' advertisements
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_PERMANENT = 0x80
_PRIORITY = 6  # of routes and of rules
_TCA_KIND, _TCA_OPTIONS = 1, 2
_ROOT = 0xFFFFFFFF
_PROTINFO, _NESTED = 12, 0x8000
_PORT_SETTINGS = (2, 4, 5, 6, 7, 8, 9, 10, 27, 30, 33)  # hairpin and its like


def text(each: Message) -> str:
    """An address, route or neighbour in words."""
    match each.kind:
        case Kind.ADDRESS:
            return f"address {ipaddress.ip_address(_value(each))}/{each.head[1]}"
        case Kind.ROUTE:
            length = 4 if each.head[0] == socket.AF_INET else 16
            destination = each.attributes.get(_RTA_DST, bytes(length))
            return f"route to {ipaddress.ip_address(destination)}/{each.head[1]}"
        case Kind.NEIGHBOUR:
            return f"neighbour {ipaddress.ip_address(each.attributes[_NDA_DST])}"
        case Kind.RULE:
            return f"rule {each.number(_PRIORITY)}"
        case Kind.QDISC:
            return "limit to the rate"
        case Kind.LINK:
            return "settings as a bridge's port"


def attempt(action: Callable[[Message], object], each: Message) -> str:
    """Do it; what is missing then, with the reason, or ""."""
    try:
        action(each)
    except OSError as error:
        return f"{text(each)}: {(error.strerror or str(error)).lower()}"
    return ""


def restore(raw: Rtnetlink, wanted: list[Message], how: int = APPEND) -> list[str]:
    """Make those that are missing; what went wrong with that.

    Some routes lead to others' routers: as long as any could be made, the rest is tried again.
    """
    while True:
        refused = [
            (each, problem)
            for each in wanted
            if (problem := attempt(lambda one: raw.make(one, how), each))
        ]
        if len(refused) in (0, len(wanted)):
            return [problem for _, problem in refused]
        wanted = [each for each, _ in refused]


def exchange(raw: Rtnetlink, now: list[Message], before: list[Message], how: int) -> list[str]:
    """Make what is there what it was before; what went wrong with that."""
    problems = [attempt(raw.delete, each) for each in now if each not in before]
    lost = [each for each in before if each not in now]
    problems += restore(raw, lost, how)
    # Of routes and rules of one rank the first is heard, and what is made comes last.
    firsts = {each.number(_PRIORITY): before.index(each) for each in reversed(lost)}
    for at, each in enumerate(before):
        if each in now and firsts.get(each.number(_PRIORITY), at) < at:
            problems += [attempt(raw.delete, each), *restore(raw, [each], how)]
    return [problem for problem in problems if problem]


# Addresses


def addresses(raw: Rtnetlink, index: int) -> list[Message]:
    """Those of an interface, primary ones before their secondaries; they can be used at once."""
    asked = Message(Kind.ADDRESS, bytes(4) + pack(index), {})
    return [_proven(each) for each in raw.dump(asked) if _index(each) == index]


def _proven(each: Message) -> Message:
    """That nobody else has it need not be found out again."""
    flags = each.number(_IFA_FLAGS)
    if each.head[0] != socket.AF_INET6 or flags & _UNPROVEN:
        return each
    return replace(each, attributes={**each.attributes, _IFA_FLAGS: pack(flags | _NODAD)})


def restore_addresses(raw: Rtnetlink, index: int, wanted: list[Message]) -> Iterable[str]:
    """Make those that are missing; what went wrong with that.

    A primary one comes before its secondaries, some of which may have taken its place, and other
    labels by a change of the interface's name.
    """
    there = addresses(raw, index)
    for other in there:
        comes_by_itself = (other.head[0], other.head[3]) == (socket.AF_INET6, _SCOPE_LINK)
        if comes_by_itself and not any(_same(other) == _same(each) for each in wanted):
            yield attempt(raw.delete, other)
    for at, each in enumerate(wanted):
        if any(_same(other) == _same(each) for other in there):
            continue
        behind = [_value(later) for later in wanted[at:]]
        for other in tuple(there):
            if _subnet(other) == _subnet(each) and _value(other) in behind:
                there.remove(other)
                yield attempt(raw.delete, other)
        yield attempt(raw.make, each)


def _index(each: Message) -> int:
    """The interface's number, which all but routes have here."""
    return number(each.head[4:8])


def _value(each: Message) -> bytes:
    return each.attributes.get(_IFA_LOCAL) or each.attributes[_IFA_ADDRESS]


def _same(each: Message) -> tuple[bytes, int, bytes | None]:
    return _value(each), each.head[1], each.attributes.get(_IFA_LABEL)


def _subnet(each: Message) -> object:
    if each.head[0] != socket.AF_INET:
        return _value(each)  # there are no secondary ones
    return ipaddress.ip_network((each.attributes[_IFA_ADDRESS], each.head[1]), strict=False)


# Routes


def routes(raw: Rtnetlink, *, link: int = 0, table: int = 0, to: str = "") -> list[Message]:
    """Those out of a link, or of a table, or to a destination; not what the kernel makes itself."""
    attributes = {_RTA_OIF: pack(link)} if link else {}
    if table:
        attributes[_RTA_TABLE] = pack(table)
    wanted = ipaddress.ip_network(to) if to else None
    found: list[Message] = []
    for family in _FAMILIES:
        try:
            dumped = raw.dump(Message(Kind.ROUTE, bytes([family]) + bytes(11), attributes))
        except OSError as error:
            if error.errno != errno.ENOENT:  # no such table
                raise
            continue
        for each in dumped:
            is_there = wanted is None or _leads_to(each, wanted)
            # An old kernel tells more than it is asked for; one of several ways has no link here.
            by_link = not link or each.number(_RTA_OIF) in (0, link)
            by_table = not table or _table(each) == table
            own = _table(each) == _OWN_TABLE or each.head[5] in _COME_BY_THEMSELVES
            if each.head[0] == family and is_there and by_link and by_table and not own:
                found.append(_plain(each))
    return found


def _table(each: Message) -> int:
    return each.number(_RTA_TABLE) or each.head[4]


def _leads_to(each: Message, to: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    destination = each.attributes.get(_RTA_DST, bytes(len(to.network_address.packed)))
    return (destination, each.head[1]) == (to.network_address.packed, to.prefixlen)


def _plain(each: Message) -> Message:
    """Without its state, which nobody can ask for."""
    flags = number(each.head[8:12]) & _ONLINK
    attributes = dict(each.attributes)
    for state in (_RTA_CACHE, _RTA_NEXTHOP):
        attributes.pop(state, None)
    return replace(each, head=each.head[:8] + pack(flags), attributes=attributes)


# The rest


def neighbours(raw: Rtnetlink, index: int, address: str = "") -> list[Message]:
    """Those that stay for good; or one, whose address of hardware is known by whatever means."""
    asked = Message(Kind.NEIGHBOUR, bytes(12), {_NDA_IFINDEX: pack(index)})
    wanted = ipaddress.ip_address(address).packed if address else b""
    return [
        each
        for each in raw.dump(asked)
        if _index(each) == index
        and _NDA_LLADDR in each.attributes
        and (each.attributes[_NDA_DST] == wanted if address else each.head[8] & _PERMANENT)
    ]


def rules(raw: Rtnetlink, version: int) -> list[Message]:
    """Those of policy routing, of a version of IP."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    found = raw.dump(Message(Kind.RULE, bytes([family]) + bytes(11), {}))
    return [each for each in found if each.head[0] == family]


def limits(raw: Rtnetlink, index: int) -> list[Message]:
    """The limit to an interface's rate, if there is one."""
    found = []
    for each in raw.dump(Message(Kind.QDISC, bytes(20), {})):
        is_root = number(each.head[12:16]) == _ROOT
        if _index(each) == index and is_root and each.attributes[_TCA_KIND] == b"tbf\0":
            kept = (_TCA_KIND, _TCA_OPTIONS)
            attributes = {name: each.attributes[name] for name in kept}
            found.append(replace(each, attributes=attributes))
    return found


def port(raw: Rtnetlink, index: int) -> Message | None:
    """How a bridge treats the interface, if it is in one."""
    for each in raw.dump(Message(Kind.LINK, bytes([_BRIDGE]) + bytes(15), {})):
        if _index(each) == index and _PROTINFO in each.attributes:
            settings = decode_attributes(each.attributes[_PROTINFO])
            kept = {name: settings[name] for name in _PORT_SETTINGS if name in settings}
            head = bytes([_BRIDGE]) + bytes(3) + pack(index) + bytes(8)
            return Message(Kind.LINK, head, {_PROTINFO | _NESTED: encode_attributes(kept)})
    return None
