"""Set sysctls, with what the kernel sets or takes away along with them; for the worker alone."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from orlop.network import objects
from orlop.network import operations as op
from orlop.network.interfaces import Undo
from orlop.network.remembering import Interface
from orlop.network.sockets import Namespaces, sysctl_path

_EVERY = ("all", "default")  # interface, there is and will be


def set_sysctl(namespaces: Namespaces, each: op.SetSysctl, undo: Undo) -> None:
    before = namespaces.read_sysctl(each.ns, each.name)
    if before == each.value:
        return
    path = sysctl_path(each.name)
    followers = {}
    with namespaces.inside(each.ns):
        for file in _followers(path):
            with suppress(OSError):  # its interface has just gone
                followers[file] = file.read_text()
    lose = _that_lose_ipv6(namespaces, each, path)
    memories = [Interface(namespaces, each.ns, link) for link in lose]

    def back() -> None:
        namespaces.write_sysctl(each.ns, each.name, before)
        with namespaces.inside(each.ns):
            for file, value in followers.items():
                with suppress(FileNotFoundError):  # its interface has gone
                    if file.read_text() != value:
                        file.write_text(value)
        for memory in memories:
            memory.restore()

    undo.append(back)
    namespaces.write_sysctl(each.ns, each.name, each.value)


def _followers(path: Path) -> list[Path]:
    """Those of single interfaces that are set with one for all of them."""
    match path.parts[4:]:
        case ("ipv4", "ip_forward"):
            conf, name = path.with_name("conf"), "forwarding"
        case (_, "conf", "all", name):
            conf = path.parents[1]
        case _:
            return []
    return sorted(conf.glob(f"*/{name}"))


def _that_lose_ipv6(namespaces: Namespaces, each: op.SetSysctl, path: Path) -> list[str]:
    """Interfaces whose addresses and routes of IPv6 go with it."""
    if path.name != "disable_ipv6" or each.value.strip() == "0":
        return []
    links = [path.parent.name]
    if links == ["all"]:
        with namespaces.inside(each.ns):
            links = [file.name for file in path.parents[1].iterdir()]
    raw = namespaces.raw(each.ns)

    def has_ipv6(link: str) -> bool:
        with suppress(OSError):  # it has just gone
            found = objects.addresses(raw, namespaces.index(each.ns, link))
            return any(address.head[0] == socket.AF_INET6 for address in found)
        return False

    return [link for link in links if link not in _EVERY and has_ipv6(link)]
