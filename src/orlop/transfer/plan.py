"""What a push brings, in its order: blobs in any, and then documents, each after its children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orlop.content import ContentStore
from orlop.errors import InvalidArgument, NotFound
from orlop.oci import manifest as documents
from orlop.oci import mediatypes, platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.manifest import DOCUMENT_MAX, Index, Manifest

_DEPTH = 4  # indexes in indexes


@dataclass(frozen=True, slots=True)
class Document:
    """An index or manifest, as its bytes and what is in it."""

    descriptor: Descriptor
    data: bytes
    content: Manifest | Index


@dataclass(slots=True)
class Plan:
    """By digest; `documents` in the order in which they may be put, the target last."""

    target: Descriptor
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)


class Planner:
    """Plans the push of images of one namespace, held by `lease` from then on."""

    def __init__(self, content: ContentStore, namespace: str, lease: str) -> None:
        self._content = content
        self._namespace = namespace
        self._lease = lease

    def plan(self, name: str, target: Descriptor, platforms: Sequence[Platform]) -> Plan:
        """All of an image, or the parts of it for some platforms.

        One platform is pushed as a plain image, without the index; of several, the index stays.
        Raises NotFound, naming platform and digest, for what is not here.
        """
        if len(platforms) == 1:
            target = self._choose(name, target, platforms[0], _DEPTH)
        plan = Plan(target)
        self._add(plan, name, target, platforms if len(platforms) > 1 else (), _DEPTH)
        return plan

    def _choose(self, name: str, target: Descriptor, wanted: Platform, depth: int) -> Descriptor:
        if target.media_type not in mediatypes.INDEXES or not depth:
            return target
        index = self._document(name, target).content
        assert isinstance(index, Index)
        best = platform.best(wanted, [(child.platform, child) for child in index.manifests])
        if best is None:
            raise NotFound(f'platform {platform.text(wanted)} in image "{name}"')
        return self._choose(name, best, wanted, depth - 1)

    def _add(
        self,
        plan: Plan,
        name: str,
        target: Descriptor,
        platforms: Sequence[Platform],
        depth: int,
    ) -> None:
        if target.digest in plan.documents:
            return
        if not depth:
            raise InvalidArgument(f'image "{name}" nests indexes too deeply')
        found = self._document(name, target)
        if isinstance(found.content, Manifest):
            for part in (found.content.config, *found.content.layers):
                self._blob(plan, name, part, target)
        else:
            for child in found.content.manifests:
                if _is_wanted(child, platforms):
                    if child.media_type in mediatypes.MANIFESTS | mediatypes.INDEXES:
                        self._add(plan, name, child, platforms, depth - 1)
                    else:
                        self._blob(plan, name, child, target)
        plan.documents[target.digest] = found

    def _blob(self, plan: Plan, name: str, part: Descriptor, parent: Descriptor) -> None:
        if part.digest in plan.blobs or mediatypes.is_non_distributable(part.media_type):
            return
        self._hold(name, part, parent)
        plan.blobs[part.digest] = part

    def _document(self, name: str, target: Descriptor) -> Document:
        self._hold(name, target, target)
        if target.size > DOCUMENT_MAX:
            raise InvalidArgument(f"document {target.digest} is larger than {DOCUMENT_MAX} bytes")
        data = self._content.read(self._namespace, target.digest)
        return Document(target, data, documents.parse(data, target.media_type))

    def _hold(self, name: str, part: Descriptor, parent: Descriptor) -> None:
        if self._content.claim(self._namespace, part.digest, self._lease):
            return
        where = f" for {platform.text(parent.platform)}" if parent.platform else ""
        raise NotFound(
            f'content "{part.digest}" of image "{name}"{where} is not here; pull it for all '
            "platforms, or push only those that are here"
        )


def _is_wanted(child: Descriptor, platforms: Sequence[Platform]) -> bool:
    if not platforms or child.platform is None:
        return True
    return any(platform.rank(wanted, child.platform) is not None for wanted in platforms)
