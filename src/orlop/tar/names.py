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


_SHOWN_MAX = 1000


def clean(name: bytes, what: str) -> bytes:
    """A member's path below the root, without `./` and needless slashes; b"" is the root.

    A slash in front means that root: builders without a file system of their own write names so.
    Raises InvalidArgument for a path that goes up.
    """
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
    """For messages, in which a name as long as a book would hide what is wrong with it."""
    text = name.decode(errors="replace")
    return f'"{text}"' if len(text) <= _SHOWN_MAX else f'"{text[:_SHOWN_MAX]}…"'
