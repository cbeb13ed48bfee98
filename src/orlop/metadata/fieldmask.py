"""Field masks: which fields of a record an update means.

An empty mask means every mutable field. `labels` replaces the whole map; `labels.<key>` sets one
entry, where everything after the first dot is the key (keys hold dots); an entry that the new
record lacks, or holds empty, is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import InvalidArgument

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Mask:
    """The fields to update: `fields` whole, and of some maps only the `entries` named.

    `everything` says that the client named none, so that all mutable fields are meant.
    """

    everything: bool
    fields: frozenset[str]
    entries: Mapping[str, frozenset[str]]

    def has(self, field: str) -> bool:
        """Whether the field is replaced whole."""
        return self.everything or field in self.fields

    def touches(self, field: str) -> bool:
        """Whether the field changes, whole or in part."""
        return self.has(field) or field in self.entries

    def merge(
        self, field: str, old: Mapping[str, Value], new: Mapping[str, Value]
    ) -> dict[str, Value]:
        """The map `field` after the update, without empty values."""
        merged = dict(new if self.has(field) else old)
        for key in self.entries.get(field, ()):
            merged.pop(key, None)
            if key in new:
                merged[key] = new[key]
        return {key: value for key, value in merged.items() if value}


def paths(mask: FieldMask, *, fields: Collection[str], maps: Collection[str] = ()) -> Mask:
    """What `mask` names, out of the mutable `fields` and `maps` of a kind of record.

    `maps` are those that may be named by entry; list one in `fields` too if it may be replaced
    whole. Raises InvalidArgument for any other path, an unknown or an immutable field.
    """
    whole: set[str] = set()
    entries: dict[str, set[str]] = {}
    for path in mask.paths:
        field, dot, key = path.partition(".")
        if dot and key and field in maps:
            entries.setdefault(field, set()).add(key)
        elif path in fields:
            whole.add(path)
        else:
            raise InvalidArgument(f'cannot update field "{path}"')
    return Mask(
        everything=not mask.paths,
        fields=frozenset(whole),
        entries={field: frozenset(keys) for field, keys in entries.items()},
    )
