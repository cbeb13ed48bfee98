"""The two sides of a comparison, as mounts that can be made beside others of the same folders.

An upper folder that is mounted must not be mounted a second time for writing: two overlays on one
upper folder spoil each other. For reading it can be a lower folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orlop.errors import FailedPrecondition
from orlop.sys.mount import Mount

_LOWER, _UPPER = "lowerdir", "upperdir"
_FOR_WRITING = (_UPPER, "workdir", "volatile", "fsync")
_MAPS = ("uidmap", "gidmap")
_COLON = re.compile(r"(?<!\\):")


@dataclass(frozen=True, slots=True)
class Upper:
    """All that one tree has beyond another, and the prefix of overlayfs' attributes in there."""

    mount: Mount
    attributes: str


@dataclass(frozen=True, slots=True)
class Layers:
    """The folders of an overlay, top first, the prefix of its attributes, and how ids are mapped:
    those of the lower folders are shown so, and those in the upper folder are so already."""

    upper: str
    lowers: tuple[str, ...]
    attributes: str
    maps: tuple[str, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        return (self.upper, *self.lowers) if self.upper else self.lowers


def layers(mounts: Sequence[Mount]) -> Layers | None:
    """The folders that a snapshot's mounts show, if they are an overlay or one whole folder."""
    if len(mounts) != 1 or mounts[0].target:
        return None
    (only,) = mounts
    options = dict(option.partition("=")[::2] for option in only.options)
    maps = tuple(each for each in only.options if each.partition("=")[0] in _MAPS)
    if only.type == "bind":
        return Layers("", (only.source,), "", maps)
    if only.type != "overlay":
        return None
    prefix = "user.overlay." if "userxattr" in options else "trusted.overlay."
    lowers = tuple(_COLON.split(options.get(_LOWER, "")))
    return Layers(options.get(_UPPER, ""), lowers, prefix, maps)


def upper_of(left: Sequence[Mount], right: Sequence[Mount]) -> Upper | None:
    """The folder with all that `right` has beyond `left`.

    None where there is no such folder: `right` is no overlay on just what `left` is.
    """
    below, above = layers(left), layers(right)
    if below is None or above is None or not above.upper or below.maps:
        return None
    if below.folders != above.lowers:
        return None
    options = ("bind", "ro", *map(_inverted, above.maps))
    return Upper(Mount("bind", above.upper, options=options), above.attributes)


def _inverted(option: str) -> str:
    """A mapping of ids the other way round: what is shown gets the owners of the lower folders."""
    name, _, text = option.partition("=")
    ranges = [entry.split(":") for entry in text.split(",")]
    return f"{name}=" + ",".join(":".join((host, inside, size)) for inside, host, size in ranges)


def for_reading(mounts: Sequence[Mount]) -> list[Mount]:
    """The same files, read-only, whoever has them mounted otherwise."""
    return [_for_reading(mount) for mount in mounts]


def _for_reading(mount: Mount) -> Mount:
    if mount.type != "overlay":
        options = [option for option in mount.options if option not in ("rw", "ro")]
        return mount._replace(options=(*options, "ro"))
    found = layers([mount._replace(target="")])
    assert found is not None
    if found.upper and found.maps:
        # Its lower folders' owners would have to be mapped, but not its upper folder's.
        raise FailedPrecondition(
            f'"{found.upper}" has mapped ids: it can only be compared with what it is on'
        )
    if len(found.folders) == 1 and not found.maps:
        return Mount("bind", found.folders[0], mount.target, ("bind", "ro"))
    kept = [o for o in mount.options if o.partition("=")[0] not in (*_FOR_WRITING, _LOWER, "rw")]
    return mount._replace(options=(*kept, f"{_LOWER}={':'.join(found.folders)}"))
