"""Digests: `<algorithm>:<hex>` (OCI image spec, descriptor.md, "Digests")."""

from __future__ import annotations

import re
from typing import Any

from orlop.errors import InvalidArgument

_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


class Digest(str):
    """A valid digest. It is a string, so it goes where strings go."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises InvalidArgument for a malformed digest or an algorithm that is not known."""
        algorithm, colon, encoded = text.partition(":")
        length = _LENGTHS.get(algorithm)
        if not colon or length is None:
            known = ", ".join(_LENGTHS)
            raise InvalidArgument(f'digest "{text}" does not begin with {known} and ":"')
        if len(encoded) != length or not _HEX.fullmatch(encoded):
            raise InvalidArgument(f'digest "{text}" is not {length} hexadecimal digits')
        return cls(text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `data`."""
        from orlop.oci.hashing import new_hash  # noqa: PLC0415 - most commands need none

        return cls.from_hash(new_hash(algorithm, data))

    @classmethod
    def from_hash(cls, state: Any) -> Digest:
        """The digest that a hash object of `new_hash` has come to."""
        return cls(f"{state.name}:{state.hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]
