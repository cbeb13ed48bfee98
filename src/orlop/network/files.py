"""The files by which programs find names: /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from orlop.errors import InvalidArgument
from orlop.network.wishes import Wishes

NAMES = ("hosts", "hostname", "resolv.conf")
GATEWAY = "host-gateway"
_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_HOSTS = Path("/etc/hosts")
_OF_HOST = Path("/etc/resolv.conf")


def hosts(
    hostname: str,
    addresses: Sequence[str],
    aliases: Sequence[str],
    wishes: Wishes,
    gateway: str,
    *,
    of_host: bool = False,
) -> str:
    """The text of /etc/hosts, which begins with that of the host if `of_host`.

    `gateway` is the address of the host, "" where there is none.
    """
    lines = [_text_of_host() if of_host else _LOCAL]
    for text in wishes.hosts:
        name, colon, address = text.partition(":")
        if address == GATEWAY:
            address = gateway or "127.0.0.1"
        try:
            ipaddress.ip_address(address.strip("[]"))
        except ValueError:
            raise InvalidArgument(f'host "{text}" is not NAME:ADDRESS') from None
        if not name or not colon or any(letter.isspace() for letter in name):
            raise InvalidArgument(f'host "{text}" is not NAME:ADDRESS')
        lines.append(f"{address.strip('[]')}\t{name}\n")
    names = " ".join(dict.fromkeys([hostname, *aliases]))
    lines += [f"{address}\t{names}\n" for address in addresses if names]
    return "".join(lines)


def _text_of_host() -> str:
    try:
        text = _HOSTS.read_text(errors="replace")
    except OSError:
        return _LOCAL
    return text if text.endswith("\n") else f"{text}\n"


def resolv(wishes: Wishes, *, loopback: bool) -> str:
    """The text of /etc/resolv.conf: the host's, but for what is wished otherwise.

    Name servers on the host's loopback are of use only where that is seen, with `loopback`.
    """
    servers, search, options = _host_resolv(loopback=loopback)
    servers = list(wishes.dns) or servers
    search = list(wishes.dns_search) or search
    options = list(wishes.dns_options) or options
    lines = [f"nameserver {_address(each)}" for each in servers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(map(_word, search))}")
    if options:
        lines.append(f"options {' '.join(map(_word, options))}")
    return "".join(f"{line}\n" for line in lines)


def _host_resolv(*, loopback: bool) -> tuple[list[str], list[str], list[str]]:
    found = _parse(_OF_HOST)
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


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True  # no use either


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise InvalidArgument(f'name server "{text}" is no address') from None
    return text


def _word(text: str) -> str:
    if not text or any(letter.isspace() for letter in text):
        raise InvalidArgument(f'"{text}" is no word of resolv.conf')
    return text
