"""How images in archives are named: by annotations there, by references here.

The annotations, and the rules by which they become names, are those of containerd's archives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orlop.errors import InvalidArgument
from orlop.oci import reference

FULL_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

_NAME_MAX = 4096
_DOCKER = f"{reference.DEFAULT_HOST}/"
_LIBRARY = f"{_DOCKER}library/"
# Where the part of a reference begins that the OCI annotation is to have.
_OBJECT = re.compile(r"[:@]")


@dataclass(frozen=True, slots=True)
class Prefix:
    """What tags in an archive are tags of.

    Full names that do not begin with it are left out, unless `allow_overwrite`. With `add_digest`
    an image has a name by digest as well: always, or with `skip_named_digest` when it would have no
    name otherwise.
    """

    name: str
    allow_overwrite: bool = False
    add_digest: bool = False
    skip_named_digest: bool = False

    def names(self, annotations: Mapping[str, str], digest: str) -> Iterator[str]:
        """The names of one image of an archive."""
        name = self._named(annotations)
        if name:
            yield name
        if self.add_digest and not (name and self.skip_named_digest):
            yield f"{self.name}@{digest}"

    def _named(self, annotations: Mapping[str, str]) -> str:
        full = annotations.get(FULL_NAME, "")
        if full:
            # It is taken as it is, or not at all.
            return full if self._translate(full) == full else ""
        named = annotations.get(REF_NAME, "")
        return self._translate(named) if named else ""

    def _translate(self, name: str) -> str:
        if not self.name:
            return ""
        if not any(mark in name for mark in "/:@"):
            return f"{self.name}:{name}"
        return name if self.allow_overwrite or self._covers(name) else ""

    def _covers(self, name: str) -> bool:
        """Whether a full name is of this repository, or below it; a short name will do."""
        return any(
            part.startswith(self.name) and part[len(self.name) : len(self.name) + 1] in {*"/:@", ""}
            for part in (name, name.rpartition("/")[2])
        )


@dataclass(frozen=True, slots=True)
class Naming:
    """The names to be made by an import: `index` are those of the archive's whole index, to which
    a digest is added for those in `index_by_digest`."""

    index: tuple[str, ...] = ()
    index_by_digest: tuple[str, ...] = ()
    prefixes: tuple[Prefix, ...] = ()

    def of_index(self, digest: str) -> list[str]:
        return [*self.index, *(f"{name}@{digest}" for name in self.index_by_digest)]

    def of_image(self, annotations: Mapping[str, str], digest: str) -> list[str]:
        """Raises InvalidArgument for a name that no image can have."""
        found = (name for prefix in self.prefixes for name in prefix.names(annotations, digest))
        names = list(dict.fromkeys(found))
        for name in names:
            if len(name) > _NAME_MAX or not name.isprintable():
                raise InvalidArgument(f'image {digest} in the archive has a bad name "{name:.100}"')
        return names


def named(name: str) -> dict[str, str]:
    """What says in an archive that an image is called `name`."""
    return {FULL_NAME: name, REF_NAME: _object(name)}


def _object(name: str) -> str:
    """The tag or `@digest` of a reference; all of what has no registry host before it."""
    host, _, path = name.partition("/")
    _, colon, port = host.partition(":")
    if not host or "@" in host or (colon and not port.isdecimal()):
        return name
    found = _OBJECT.search(path)
    if found is None:
        return ""
    return path[found.start() :].removeprefix(":")


def from_docker(tag: str) -> str:
    """The full name of one of docker's `RepoTags`; InvalidArgument for what is none."""
    found = reference.normalize(tag)
    return f"{found.repository}@{found.digest}" if found.digest else str(found)


def to_docker(name: str) -> str | None:
    """The short form that docker shows of a name; None if docker could not have such a name."""
    try:
        full = str(reference.normalize(name))
    except InvalidArgument:
        return None
    return full.removeprefix(_LIBRARY).removeprefix(_DOCKER)
