"""What a client may see: only what an image of the repository leads to.

Knowing a digest is not enough: a blob that no image of the repository refers to is not there.
"""

from __future__ import annotations

from collections.abc import Iterator

from orlop.content import ContentStore
from orlop.errors import NotFound
from orlop.oci.descriptor import Descriptor
from orlop.origin.graph import DOCUMENTS, Document, Graph
from orlop.origin.holds import Holds
from orlop.origin.repositories import Repositories, Repository


class Offers:
    """What there is in repositories; with `holds`, also what was just pushed and has no image."""

    def __init__(
        self,
        content: ContentStore,
        repositories: Repositories,
        namespace: str,
        holds: Holds | None,
    ) -> None:
        self._content = content
        self._namespace = namespace
        self._graph = Graph(content, namespace)
        self._repositories = repositories
        self._holds = holds

    def blob(self, name: str, host: str, digest: str) -> Descriptor | None:
        """A blob of the repository; its media type is "" where none is known."""
        repository = self._repositories.find(name, host)
        for root in repository.targets:
            found = self._graph.reach(root).get(digest)
            if found is not None:
                return found
        own = self._own(name, host)
        if self._holds is not None and own and self._holds.has(own, digest):
            return Descriptor(media_type="", digest=digest, size=self._size(digest))
        return None

    def manifest(self, name: str, host: str, wanted: str) -> Descriptor | None:
        """A manifest or index of the repository, by tag or digest, that is here."""
        if ":" not in wanted:
            found = self._repositories.find(name, host).tags.get(wanted)
        else:
            found = self.blob(name, host, wanted)
        if found is None:
            return None
        if not found.media_type:
            document = self._graph.document(found.digest)
            return document.descriptor if document else None
        return found if found.media_type in DOCUMENTS else None

    def referrers(self, name: str, host: str, digest: str) -> list[Document]:
        """The manifests of the repository that have `digest` as their subject, by digest."""
        found = {
            each.descriptor.digest: each
            for each in self._documents(self._repositories.find(name, host), name, host)
            if each.subject == digest
        }
        return [found[key] for key in sorted(found)]

    def _documents(self, repository: Repository, name: str, host: str) -> Iterator[Document]:
        for root in repository.targets:
            for each in self._graph.reach(root).values():
                if each.media_type in DOCUMENTS:
                    document = self._graph.document(each.digest, each.media_type)
                    if document is not None:
                        yield document
        own = self._own(name, host)
        held = self._holds.content(own) if self._holds is not None and own else set()
        for digest in held:
            document = self._graph.document(digest)
            if document is not None:
                yield document

    def _own(self, name: str, host: str) -> str:
        """The full name of this registry's repository; "" where another host's is meant."""
        own = self._repositories.own
        return f"{own}/{name}" if host in ("", own) else ""

    def _size(self, digest: str) -> int:
        try:
            return self._content.info(self._namespace, digest).size
        except NotFound:
            return 0
