"""Which repositories there are: image records, seen as a registry's client sees them.

An image `host/path:tag` is offered in three ways. A client that uses this registry as a mirror says
`?ns=host` and `path`, and gets exactly that host's. Others may spell the host before the path. The
path alone means this registry's own images (those pushed here), or else the one host that has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orlop.errors import InvalidArgument
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.oci.reference import Reference
from orlop.origin.exchange import Refusal


@dataclass(frozen=True, slots=True)
class Repository:
    """The images of one repository: `tags` by name, `targets` with those that have no tag."""

    host: str
    path: str
    tags: dict[str, Descriptor]
    targets: tuple[Descriptor, ...]
    names: tuple[tuple[str, str], ...]  # of image records, with the digest of each

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"


class Repositories:
    """The repositories of one namespace. `own` is the host that pushed images belong to."""

    def __init__(self, images: ImageStore, namespace: str, own: str) -> None:
        self._images = images
        self._namespace = namespace
        self.own = own

    def find(self, name: str, host: str = "") -> Repository:
        """The repository that a request means; `host` is its `ns`.

        One of this registry's own is found even if it is empty. Refuses names that are ambiguous.
        """
        if host:
            return self._of(host, name, self._images.beginning(self._namespace, f"{host}/{name}"))
        found = self._named(name)
        if f"{self.own}/{name}" in found or not found:
            return found.get(f"{self.own}/{name}") or self._of(self.own, name, ())
        if name in found:
            return found[name]
        if len(found) > 1:
            raise Refusal(
                404,
                "NAME_UNKNOWN",
                f'repository "{name}" is one of several here: name its host, as in '
                f'"{min(found)}", or say ns=host',
            )
        return next(iter(found.values()))

    def _named(self, name: str) -> dict[str, Repository]:
        """The repositories with that path, and the one spelt so with its host."""
        images = self._images.containing(self._namespace, name)
        hosts = {each.host for each, _ in _references(images) if each.path == name}
        found = {f"{host}/{name}": self._of(host, name, images) for host in hosts}
        host, _, path = name.partition("/")
        spelt = self._of(host, path, images)
        return {**found, name: spelt} if spelt.targets else found

    @staticmethod
    def _of(host: str, path: str, images: Iterable[Image]) -> Repository:
        tags, targets, names = {}, {}, []
        for found, image in _references(images):
            if (found.host, found.path) != (host, path):
                continue
            if found.digest and found.digest != image.target.digest:
                continue
            if found.tag:
                tags[found.tag] = image.target
            targets[image.target.digest] = image.target
            names.append((image.name, image.target.digest))
        return Repository(host, path, tags, tuple(targets.values()), tuple(names))

    def names(self) -> list[str]:
        """What to call each repository when no `ns` is said, sorted."""
        images = self._images.containing(self._namespace, "/")
        found = set(_repositories({_untagged(each.name) for each in images}))
        shared = Counter(path for _, path in found)
        return sorted(
            path if host == self.own or shared[path] == 1 else f"{host}/{path}"
            for host, path in found
        )


def _untagged(name: str) -> str:
    """A reference without its tag and digest."""
    name = name.partition("@")[0]
    before, colon, tag = name.rpartition(":")
    return before if colon and "/" not in tag else name


def _repositories(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            found = reference.parse(name)
        except InvalidArgument:
            continue
        yield found.host, found.path


def _references(images: Iterable[Image]) -> Iterator[tuple[Reference, Image]]:
    """The images whose names are references; those of imports and of Kubernetes need not be."""
    for image in images:
        try:
            yield reference.parse(image.name), image
        except InvalidArgument:
            continue
