"""Names in a layer: paths below its root, deletions, and links that lead out."""

from __future__ import annotations

from orlop.errors import InvalidArgument

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS_OWN = b".wh..wh."
"""The prefix of what the aufs driver kept for itself; it means nothing here."""

OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
"""overlayfs' own attributes are not a layer's to set: they could redirect, or unhide."""

ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"


def clean(name: bytes, what: str) -> bytes:
    """A member's path below the root, without `./` and double slashes; b"" is the root.

    Raises InvalidArgument for an absolute path, or one that goes up.
    """
    if name.startswith(b"/"):
        raise InvalidArgument(f"{what} entry {show(name)} is an absolute path")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise InvalidArgument(f'{what} entry {show(name)} has ".." in its path')
    return b"/".join(parts)


def hidden_by(folder: bytes, name: bytes, what: str) -> bytes:
    """What the whiteout `name` in `folder` hides; InvalidArgument if that is nothing."""
    hidden = name.removeprefix(WHITEOUT)
    if hidden in (b"", b".", b".."):
        raise InvalidArgument(f"{what} has a whiteout of nothing: {show(folder + b'/' + name)}")
    return hidden


def show(name: bytes) -> str:
    return f'"{name.decode(errors="replace")}"'
