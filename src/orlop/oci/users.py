"""Which user a container's process runs as: the image's own passwd and group files decide.

The `User` of an image config (OCI image spec, config.md) or of a command line is `user`, `uid`,
`user:group`, `uid:gid`, `uid:group` or `user:gid`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orlop.errors import InvalidArgument, NotFound

_ID_MAX = 2**32 - 2


class User(NamedTuple):
    """A resolved user: numeric ids, supplementary groups and the home directory."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


def resolve(wanted: str, passwd: str, group: str) -> User:
    """Resolve `wanted` against the texts of an image's /etc/passwd and /etc/group.

    An empty `wanted` is root. A numeric user needs no passwd entry; its group is then 0. Groups
    that list the user as a member are supplementary unless a group was given. Raises NotFound for a
    name that the files do not have, InvalidArgument for a number out of range.
    """
    user_part, _, group_part = wanted.partition(":")
    entry = _find_user(user_part or "0", passwd)
    if entry is not None:
        name, uid, gid, home = entry
    else:
        name, uid, gid, home = "", _number("user", user_part), 0, "/"
    if group_part:
        return User(uid, _find_group(group_part, group), (), home)
    return User(uid, gid, tuple(_memberships(name, group)), home)


def with_groups(user: User, names: Sequence[str], group: str) -> User:
    """The user with more supplementary groups, by name or number."""
    more = (_find_group(name, group) for name in names)
    return user._replace(additional_gids=tuple(dict.fromkeys([*user.additional_gids, *more])))


def _find_user(wanted: str, passwd: str) -> tuple[str, int, int, str] | None:
    for name, uid, gid, _, home in _entries(passwd, 5, skip=1):
        if wanted in (name, uid) and uid.isdecimal() and gid.isdecimal():
            return name, int(uid), int(gid), home or "/"
    if wanted.isdecimal():
        return None
    raise NotFound(f'user "{wanted}" in the image\'s /etc/passwd')


def _find_group(wanted: str, group: str) -> int:
    for name, gid, _ in _entries(group, 3, skip=1):
        if wanted in (name, gid) and gid.isdecimal():
            return int(gid)
    if wanted.isdecimal():
        return _number("group", wanted)
    raise NotFound(f'group "{wanted}" in the image\'s /etc/group')


def _memberships(user: str, group: str) -> Iterator[int]:
    for _, gid, members in _entries(group, 3, skip=1):
        if user and user in members.split(",") and gid.isdecimal():
            yield int(gid)


def _entries(text: str, fields: int, *, skip: int) -> Iterator[list[str]]:
    """The colon-separated lines, without the password field at position `skip`."""
    for line in text.splitlines():
        parts = line.strip().split(":")
        del parts[skip : skip + 1]
        if len(parts) >= fields:
            yield parts[:fields]


def _number(kind: str, text: str) -> int:
    value = int(text) if text else 0
    if value > _ID_MAX:
        raise InvalidArgument(f'{kind} "{text}" is larger than {_ID_MAX}')
    return value
