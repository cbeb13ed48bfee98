"""The two sides of a comparison, as mounts that can be made beside others of the same folders.

An upper folder that is mounted must not be mounted a second time for writing: two overlays on one
upper folder spoil each other. For reading it can be a lower folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orlop.sys.mount import Mount

_LOWER, _UPPER = "lowerdir", "upperdir"
_FOR_WRITING = (_UPPER, "workdir", "volatile", "fsync")
# With these, what overlayfs shows differs from what is in its folders.
_SHIFTING = ("uidmap", "gidmap")
_COLON = re.compile(r"(?<!\\):")


@dataclass(frozen=True, slots=True)
class Layers:
    """The folders of an overlay, top first, and the prefix of its attributes."""

    upper: str
    lowers: tuple[str, ...]
    attributes: str
    shifted: bool

    @property
    def folders(self) -> tuple[str, ...]:
        return (self.upper, *self.lowers) if self.upper else self.lowers


def layers(mounts: Sequence[Mount]) -> Layers | None:
    """The folders that a snapshot's mounts show, if they are an overlay or one whole folder."""
    if len(mounts) != 1 or mounts[0].target:
        return None
    (only,) = mounts
    options = dict(option.partition("=")[::2] for option in only.options)
    shifted = any(name in options for name in _SHIFTING)
    if only.type == "bind":
        return Layers("", (only.source,), "", shifted)
    if only.type != "overlay":
        return None
    prefix = "user.overlay." if "userxattr" in options else "trusted.overlay."
    lowers = tuple(_COLON.split(options.get(_LOWER, "")))
    return Layers(options.get(_UPPER, ""), lowers, prefix, shifted)


def upper_of(left: Sequence[Mount], right: Sequence[Mount]) -> tuple[str, str] | None:
    """The folder with all that `right` has beyond `left`, and the prefix of its attributes.

    None where there is no such folder: `right` is no overlay on just what `left` is.
    """
    below, above = layers(left), layers(right)
    if below is None or above is None or not above.upper or below.shifted or above.shifted:
        return None
    if below.folders != above.lowers:
        return None
    return above.upper, above.attributes


def for_reading(mounts: Sequence[Mount]) -> list[Mount]:
    """The same files, read-only, whoever has them mounted otherwise."""
    return [_for_reading(mount) for mount in mounts]


def _for_reading(mount: Mount) -> Mount:
    if mount.type != "overlay":
        options = [option for option in mount.options if option not in ("rw", "ro")]
        return replace(mount, options=(*options, "ro"))
    found = layers([replace(mount, target="")])
    assert found is not None
    if len(found.folders) == 1:
        return Mount("bind", found.folders[0], mount.target, ("bind", "ro"))
    kept = [o for o in mount.options if o.partition("=")[0] not in (*_FOR_WRITING, _LOWER, "rw")]
    return replace(mount, options=(*kept, f"{_LOWER}={':'.join(found.folders)}"))
