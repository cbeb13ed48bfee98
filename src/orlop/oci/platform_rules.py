"""Which image of an index runs here, and which of several runs best.

These rules are for whatever has a platform's members; `orlop.oci.platform` is for documents.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple, Protocol, TypeVar

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
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")
_AMD64_VARIANTS = ("v4", "v3", "v2", "")
# Flags of /proc/cpuinfo beyond the level below (x86-64 psABI, "Micro-Architecture Levels").
_AMD64_LEVELS = (
    ("v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    ("v3", {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)


class Platform(Protocol):
    """The members of a platform (OCI image spec, image-index.md, "platform")."""

    @property
    def architecture(self) -> str: ...
    @property
    def os(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def os_version(self) -> str: ...
    @property
    def os_features(self) -> tuple[str, ...]: ...


class Members(NamedTuple):
    """A platform by itself, of no document."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


def canonical(platform: Platform) -> Members:
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
    return Members(architecture, system, variant, platform.os_version, tuple(platform.os_features))


def text(platform: Platform) -> str:
    """`linux/arm/v7`, or `windows(10.0.17763+win32k)/amd64`."""
    system = platform.os
    if platform.os_version or platform.os_features:
        system += f"({'+'.join((platform.os_version, *platform.os_features))})"
    parts = (system, platform.architecture, platform.variant)
    return "/".join(part for part in parts if part) or "unknown"


def here() -> Members:
    """This machine's platform; for amd64 without its level (see `host_level`)."""
    return canonical(Members(os.uname().machine, "linux"))


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
    wanted, offered = canonical(wanted), canonical(offered)
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
        top = variant or (host_level() if here().architecture == "amd64" else "")
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
