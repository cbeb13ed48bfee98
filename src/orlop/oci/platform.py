"""Platforms of documents: as they are written, and as people write them."""

from __future__ import annotations

import re

from msgspec.structs import replace

from orlop.errors import InvalidArgument
from orlop.oci.descriptor import Platform
from orlop.oci.platform_rules import best, canonical, here, host_level, rank, text

__all__ = ["best", "host", "host_level", "normalize", "parse", "rank", "text"]

_KNOWN_OS = frozenset({"linux", "darwin", "windows", "freebsd", "netbsd", "openbsd"})
_PART = re.compile(r"[A-Za-z0-9_.-]+")
# A system may say its version and features: `windows(10.0.17763+win32k)`.
_SYSTEM = re.compile(r"([A-Za-z0-9_.-]+)\(([A-Za-z0-9_.-]*)((?:\+[A-Za-z0-9_.-]+)*)\)")


def normalize(platform: Platform) -> Platform:
    """The canonical spelling: `x86_64` is `amd64`, `arm` without a variant is v7."""
    return Platform(*canonical(platform))


def parse(text: str) -> Platform:
    """Parse `os/arch[/variant]`, or one of os and arch alone; InvalidArgument if it is not one.

    The os may be `os(version+feature+…)`.
    """
    parts = text.split("/")
    if detailed := _SYSTEM.fullmatch(parts[0]):
        plain = parse("/".join((detailed[1], *parts[1:])))
        features = tuple(filter(None, detailed[3].split("+")))
        return replace(plain, os_version=detailed[2], os_features=features)
    if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(f'platform "{text}" is not OS/ARCHITECTURE[/VARIANT]')
    if len(parts) == 1:
        machine = here()
        if text.lower() in _KNOWN_OS:
            return normalize(Platform(machine.architecture, text))
        return normalize(Platform(text, machine.os))
    return normalize(Platform(parts[1], parts[0], parts[2] if len(parts) == 3 else ""))


def host() -> Platform:
    """This machine's platform; for amd64 without its level (see `host_level`)."""
    return Platform(*here())
