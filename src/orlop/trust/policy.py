"""What the operator wants of images, by repository: a TOML file of policies.

    default = "accept"

    [[policy]]
    repository = "registry.example/team/*"
    action = "require"
    keys = ["team.pub"]
    identities = [{ identity = "https://ci.example/team/*", issuer = "https://login.example" }]
    trusted_root = "trusted_root.json"

The first policy whose pattern the repository matches (`*`, `?` and `[…]`, across slashes) counts;
`default` counts where none does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from orlop.errors import InvalidArgument
from orlop.oci.reference import canonical_host, canonical_repository, spellings
from orlop.trust.signers import NOBODY, Identity, Signers

ACCEPT, REJECT, REQUIRE = "accept", "reject", "require"
_ACTIONS = (ACCEPT, REJECT, REQUIRE)
_WILD = frozenset("*?[")
_KEYS = {
    "repository": str,
    "action": str,
    "keys": list,
    "identities": list,
    "trusted_root": str,
    "match_repository": bool,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do with the images of a repository, which is a pattern.

    With `match_repository` a signature counts only for the repository that it names.
    """

    repository: str
    action: str
    signers: Signers = NOBODY
    match_repository: bool = False


def load(file: Path) -> Sequence[Policy]:
    """The policies in a file, the default last; without the file every image is accepted.

    Raises InvalidArgument that names file and key for one that makes no sense.
    """
    try:
        document = tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        return [Policy("*", ACCEPT)]
    except OSError as error:
        raise InvalidArgument(f'trust policy "{file}" cannot be read: {error.strerror}') from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f'trust policy "{file}" is not TOML: {error}') from None
    for key in document:
        if key not in ("default", "policy"):
            raise _wrong(file, key, "is not known; there are default and policy")
    tables = document.get("policy", [])
    if not isinstance(tables, list):
        raise _wrong(file, "policy", "must be written [[policy]]")
    found = [_policy(file, f"policy[{at}]", table) for at, table in enumerate(tables)]
    default = document.get("default", ACCEPT)
    if default not in (ACCEPT, REJECT):
        raise _wrong(file, "default", f"must be {ACCEPT} or {REJECT}, not {default!r}")
    return [*found, Policy("*", default)]


def find(policies: Sequence[Policy], repository: str) -> Policy:
    """The policy for `host/path`, however the host is spelled there or in the pattern."""
    return next(each for each in policies if _matches(repository, each.repository))


def _matches(repository: str, pattern: str) -> bool:
    if fnmatchcase(repository, pattern):
        return True
    host, slash, path = pattern.partition("/")
    if _WILD.isdisjoint(host):
        pattern = f"{canonical_host(host)}{slash}{path}"
        return fnmatchcase(canonical_repository(repository), pattern)
    # Another spelling of a wildcard, as without its port, could stand for other hosts, too.
    return any(fnmatchcase(each, pattern) for each in spellings(repository))


def _policy(file: Path, where: str, table: Any) -> Policy:
    if not isinstance(table, Mapping):
        raise _wrong(file, where, "must be a table")
    for key, value in table.items():
        kind = _KEYS.get(key)
        if kind is None:
            raise _wrong(file, f"{where}.{key}", f"is not known; there are {', '.join(_KEYS)}")
        if not isinstance(value, kind):
            raise _wrong(file, f"{where}.{key}", f"must be a {kind.__name__}, not {value!r}")
    action = table.get("action", "")
    if action not in _ACTIONS:
        raise _wrong(file, f"{where}.action", f"must be one of {', '.join(_ACTIONS)}")
    if not table.get("repository"):
        raise _wrong(file, f"{where}.repository", "is missing")
    signers = _signers(file, where, table)
    if (signers != NOBODY) != (action == REQUIRE):
        raise _wrong(
            file, f"{where}.keys", f"or identities belong to {REQUIRE}, which needs one of them"
        )
    return Policy(table["repository"], action, signers, table.get("match_repository", False))


def _signers(file: Path, where: str, table: Mapping[str, Any]) -> Signers:
    keys = tuple(file.parent / str(each) for each in table.get("keys", []))
    identities = tuple(
        _identity(file, f"{where}.identities[{at}]", each)
        for at, each in enumerate(table.get("identities", []))
    )
    root = table.get("trusted_root", "")
    if bool(root) != bool(identities):
        raise _wrong(file, f"{where}.trusted_root", "and identities need each other")
    return Signers(keys, identities, file.parent / root if root else None)


def _identity(file: Path, where: str, table: Any) -> Identity:
    if not isinstance(table, Mapping) or set(table) != {"identity", "issuer"}:
        raise _wrong(file, where, "must be { identity = …, issuer = … }")
    for key, value in table.items():
        if not isinstance(value, str) or not value:
            raise _wrong(file, f"{where}.{key}", f"must be a text, not {value!r}")
    return Identity(table["identity"], table["issuer"])


def _wrong(file: Path, key: str, what: str) -> InvalidArgument:
    return InvalidArgument(f'trust policy "{file}": {key} {what}')
