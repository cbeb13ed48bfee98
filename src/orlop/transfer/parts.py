"""What unpacking needs of whoever brings an image's parts: a registry, or an archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from orlop.content import ContentStore, ContentWriter
from orlop.oci.descriptor import Descriptor


class Parts(Protocol):
    """The parts of one image, on their way into one namespace, under one lease."""

    content: ContentStore
    namespace: str
    lease: str

    @property
    def image(self) -> str:
        """The name by which others can fetch them, too; "" if they cannot."""

    def blob(self, wanted: Descriptor) -> None:
        """Have a blob in the store."""

    def writer(self, wanted: Descriptor) -> AbstractContextManager[ContentWriter | None]:
        """A writer for a blob, or None when it is there."""

    def download(self, writer: ContentWriter, wanted: Descriptor, told: Callable[[], None]) -> None:
        """Append what is missing of a blob; `told` is called after each piece."""

    def commit(self, writer: ContentWriter, wanted: Descriptor) -> None:
        """Verify and keep a blob."""

    def label(self, wanted: Descriptor, labels: Mapping[str, str]) -> None:
        """Set some labels of a blob, leaving the others."""

    def say(self, event: str, wanted: Descriptor, done: int) -> None:
        """Report the state of an object, of which `done` bytes are here."""
