"""The files by which programs find names: /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
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
_HOSTS = Path("/etc/hosts")
_MOST = 1 << 20
_writing = threading.Lock()


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


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Write a container's file anew in place, as it is mounted; fine if it is not there.

    What the container has made larger than a megabyte is left alone. Raises OSError.
    """
    # No lock of the file's: the container could hold it for ever.
    with suppress(FileNotFoundError), _writing:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            text = os.pread(fd, _MOST + 1, 0)
            if len(text) <= _MOST and (new := change(text)) != text:
                os.pwrite(fd, new, 0)
                os.ftruncate(fd, len(new))
        finally:
            os.close(fd)
