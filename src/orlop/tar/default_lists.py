"""Default ACLs of folders, which have none while a layer is unpacked: its files come with their
own, or none.

They are kept by the folders' own names: an entry without such a list takes away that of the folder,
by whichever link others came into it.
"""

from __future__ import annotations

import os

from orlop.tar.names import DEFAULT_ACL


class DefaultLists:
    """What folders below the root directory of this process are to have in the end."""

    def __init__(self) -> None:
        self._found: dict[bytes, bytes] = {}

    def items(self) -> list[tuple[bytes, bytes]]:
        """Folders, with no links on the way, and their lists."""
        return list(self._found.items())

    def lift(self, path: bytes) -> None:
        """Take a folder's list away for a while, if it has one."""
        try:
            found = os.getxattr(b"/" + path, DEFAULT_ACL)
            os.removexattr(b"/" + path, DEFAULT_ACL)
        except OSError:
            return  # it has none
        self._found[_own(path)] = found

    def note(self, path: bytes, value: bytes) -> None:
        """What an entry says of a folder."""
        self._found[_own_name(path)] = value

    def forget(self, path: bytes) -> None:
        """Another folder is there, or none, or one without a list."""
        if self._found:
            self._found.pop(_own_name(path), None)


def _own(path: bytes) -> bytes:
    return os.path.realpath(b"/" + path)[1:]


def _own_name(path: bytes) -> bytes:
    """The same of what may be a link itself by now."""
    folder, _, name = path.rpartition(b"/")
    return os.path.join(_own(folder), name)  # noqa: PTH118 - names are bytes
