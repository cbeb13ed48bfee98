"""`--userns`: the ids of this host that a container gets (subuid(5), subgid(5))."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator
from pathlib import Path

from orlop.errors import InvalidArgument, NotFound
from orlop.oci.spec import IdRange

HELP = "host, auto, a user of /etc/subuid, or FIRST:COUNT ids of this host"
_USUAL = ("orlop", "containers", "dockremap")
_RANGE = re.compile(r"(\d+):(\d+)")
_FOLDER = Path("/etc")


def parse(text: str, folder: Path = _FOLDER) -> tuple[list[IdRange], list[IdRange]]:
    """The ranges of uids and gids; empty for the host's own namespace.

    `auto` takes those of orlop, containers or dockremap, whichever there is. Raises NotFound where
    the files have no ranges, InvalidArgument for what makes no sense.
    """
    if text in ("", "host"):
        return [], []
    if match := _RANGE.fullmatch(text):
        first, count = int(match[1]), int(match[2])
        if not count or first + count > 2**32 - 1:
            raise InvalidArgument(f'user namespace "{text}" is no range of ids')
        return [IdRange(0, first, count)], [IdRange(0, first, count)]
    names = _USUAL if text == "auto" else (text,)
    for name in names:
        uids, gids = (list(_ranges(folder / file, name)) for file in ("subuid", "subgid"))
        if uids and gids:
            return uids, gids
    raise NotFound(f"ranges of {' or '.join(names)} in {folder}/subuid and {folder}/subgid")


def _ranges(path: Path, name: str) -> Iterator[IdRange]:
    inside = 0
    names = {name, *_other_names(name)}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        user, _, rest = line.partition(":")
        if user in names and (match := _RANGE.fullmatch(rest.strip())):
            yield IdRange(inside, int(match[1]), int(match[2]))
            inside += int(match[2])


def _other_names(name: str) -> Iterator[str]:
    """A user may be written as a name or a number."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        return
    yield entry.pw_name
    yield str(entry.pw_uid)
