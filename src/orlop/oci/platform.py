"""Platforms: which image of an index runs here, and which of several runs best."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import TypeVar

from msgspec.structs import replace

from orlop.errors import InvalidArgument
from orlop.oci.descriptor import Platform

T = TypeVar("T")

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "x86": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_KNOWN_OS = frozenset({"linux", "darwin", "windows", "freebsd", "netbsd", "openbsd"})
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")
_AMD64_VARIANTS = ("v4", "v3", "v2", "")
# Flags of /proc/cpuinfo beyond the level below (x86-64 psABI, "Micro-Architecture Levels").
_AMD64_LEVELS = (
    ("v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    ("v3", {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
_PART = re.compile(r"[A-Za-z0-9_.-]+")
# A system may say its version and features: `windows(10.0.17763+win32k)`.
_SYSTEM = re.compile(r"([A-Za-z0-9_.-]+)\(([A-Za-z0-9_.-]*)((?:\+[A-Za-z0-9_.-]+)*)\)")


def normalize(platform: Platform) -> Platform:
    """The canonical spelling: `x86_64` is `amd64`, `arm` without a variant is v7."""
    architecture = platform.architecture.lower()
    variant = platform.variant.lower()
    architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant or implied
    if architecture == "arm":
        variant = variant or "v7"
        variant = variant if variant.startswith("v") else f"v{variant}"
    if (architecture, variant) in (("amd64", "v1"), ("arm64", "v8"), ("arm64", "8")):
        variant = ""
    system = {"macos": "darwin"}.get(platform.os.lower(), platform.os.lower())
    return Platform(architecture, system, variant, platform.os_version, tuple(platform.os_features))


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
        here = host()
        if text.lower() in _KNOWN_OS:
            return normalize(Platform(here.architecture, text))
        return normalize(Platform(text, here.os))
    return normalize(Platform(parts[1], parts[0], parts[2] if len(parts) == 3 else ""))


def text(platform: Platform) -> str:
    """`linux/arm/v7`, or `windows(10.0.17763+win32k)/amd64`."""
    system = platform.os
    if platform.os_version or platform.os_features:
        system += f"({'+'.join((platform.os_version, *platform.os_features))})"
    parts = (system, platform.architecture, platform.variant)
    return "/".join(part for part in parts if part) or "unknown"


def host() -> Platform:
    """This machine's platform; for amd64 without its level (see `host_level`)."""
    return normalize(Platform(os.uname().machine, "linux"))


@cache
def host_level() -> str:
    """The amd64 level of this machine: "", "v2", "v3" or "v4"."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:  # noqa: PTH123
            flags = next((set(line.split()) for line in info if line.startswith("flags")), set())
    except OSError:
        return ""
    level = ""
    for name, needed in _AMD64_LEVELS:
        if not needed <= flags:
            break
        level = name
    return level


def rank(wanted: Platform, offered: Platform | None) -> int | None:
    """How well `offered` serves `wanted`: 0 is best, None not at all.

    An arm of a lower variant runs on a higher one, an amd64 of a lower level likewise, and 386 on
    amd64, each worse than the one before. What needs features that are not wanted does not run; no
    platform at all matches last.
    """
    if offered is None:
        return 1000
    wanted, offered = normalize(wanted), normalize(offered)
    if wanted.os != offered.os:
        return None
    if not _same_build(wanted.os_version, offered.os_version):
        return None
    if not set(offered.os_features) <= set(wanted.os_features):
        return None
    for position, candidate in enumerate(_runnable(wanted.architecture, wanted.variant)):
        if candidate == (offered.architecture, offered.variant):
            return position
    return None


def _same_build(wanted: str, offered: str) -> bool:
    """Windows runs images of its own build; the revision after that does not matter."""
    if not wanted or not offered:
        return True
    return wanted.split(".")[:3] == offered.split(".")[:3]


def _runnable(architecture: str, variant: str) -> list[tuple[str, str]]:
    """What runs on an architecture, best first."""
    if architecture == "amd64":
        top = variant or (host_level() if host().architecture == "amd64" else "")
        levels = _AMD64_VARIANTS[_AMD64_VARIANTS.index(top) :] if top in _AMD64_VARIANTS else ("",)
        return [*(("amd64", level) for level in levels), ("386", "")]
    if architecture == "arm64":
        return [("arm64", variant), ("arm64", ""), *(("arm", v) for v in _ARM_VARIANTS)]
    if architecture == "arm" and variant in _ARM_VARIANTS:
        return [("arm", v) for v in _ARM_VARIANTS[_ARM_VARIANTS.index(variant) :]]
    return [(architecture, variant)]


def best(wanted: Platform, offers: Iterable[tuple[Platform | None, T]]) -> T | None:
    """The offer that serves `wanted` best, the first of equals; None when none does."""
    ranked = [
        (score, position, offer)
        for position, (platform, offer) in enumerate(offers)
        if (score := rank(wanted, platform)) is not None
    ]
    return min(ranked, key=lambda entry: entry[:2])[2] if ranked else None
