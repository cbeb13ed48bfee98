"""/etc/resolv.conf: the host's read, and a container's written."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orlop.errors import InvalidArgument

if TYPE_CHECKING:
    from orlop.network.wishes import Wishes

OF_HOST = Path("/etc/resolv.conf")
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_MOST_SERVERS = 3  # resolv.conf(5)


def text(wishes: Wishes, own: Sequence[str] = (), *, loopback: bool) -> str:
    """The text of /etc/resolv.conf: the host's, but for what is wished otherwise.

    Name servers on the host's loopback are of use only where that is seen, with `loopback`. `own`
    are those that know containers, and ask the others; a wished one on the container's loopback
    can be asked only by itself.
    """
    servers, search, options = _host_resolv(loopback=loopback)
    servers = [_address(each) for each in wishes.dns] or servers
    search = list(wishes.dns_search) or search
    options = list(wishes.dns_options) or options
    if own and not any(map(_is_local, wishes.dns)):
        servers = list(own)[:_MOST_SERVERS]
        if not any(each.startswith("ndots:") for each in options):
            options = [*options, "ndots:0"]  # names of containers are tried as they are, first
    lines = [f"nameserver {_address(each)}" for each in servers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(map(_word, search))}")
    if options:
        lines.append(f"options {' '.join(map(_word, options))}")
    return "".join(f"{line}\n" for line in lines)


def _host_resolv(*, loopback: bool) -> tuple[list[str], list[str], list[str]]:
    found = _parse(OF_HOST)
    if loopback:
        return found
    servers = [each for each in found[0] if not _is_local(each)]
    if found[0] and not servers:
        servers = [each for each in _parse(_RESOLVED)[0] if not _is_local(each)]
    return servers, found[1], found[2]


def _parse(path: Path) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        match line.split():
            case ["nameserver", address, *_]:
                servers.append(address)
            case ["search" | "domain", *names]:
                search = names
            case ["options", *names]:
                options += names
    return servers, search, options


def servers_in(path: Path) -> list[str]:
    """The addresses of name servers that a file like resolv.conf names."""
    return list(filter(is_address, _parse(path)[0]))


def is_address(text: str) -> bool:
    """Whether a name server is named by an address, maybe with an interface: `fe80::1%eth0`."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True  # no use either


def _address(text: str) -> str:
    if not is_address(text):
        raise InvalidArgument(f'name server "{text}" is no address')
    return text


def _word(text: str) -> str:
    if not text or any(letter.isspace() for letter in text):
        raise InvalidArgument(f'"{text}" is no word of resolv.conf')
    return text
