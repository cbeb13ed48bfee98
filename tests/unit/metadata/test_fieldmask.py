from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import InvalidArgument
from orlop.metadata import fieldmask
from orlop.metadata.fieldmask import Mask

OLD = {"a": "1", "b.c/d": "2"}
NEW = {"a": "9", "b.c/d": "", "e": "5"}


def mask(*paths: str) -> Mask:
    return fieldmask.paths(
        FieldMask(paths=paths), fields=("labels", "spec"), maps=("labels", "notes")
    )


def test_an_empty_mask_is_everything() -> None:
    everything = mask()
    assert everything.everything
    assert everything.has("spec")
    assert everything.touches("labels")
    assert everything.merge("labels", OLD, NEW) == {"a": "9", "e": "5"}


def test_a_field() -> None:
    spec = mask("spec")
    assert spec.has("spec")
    assert not spec.has("labels")
    assert not spec.touches("labels")
    assert spec.merge("labels", OLD, NEW) == OLD


def test_entries_of_a_map() -> None:
    entries = mask("labels.b.c/d", "labels.e", "labels.nowhere")
    assert entries.touches("labels")
    assert not entries.has("labels")
    assert entries.merge("labels", OLD, NEW) == {"a": "1", "e": "5"}
    assert mask("labels", "labels.a").merge("labels", OLD, NEW) == {"a": "9", "e": "5"}


@pytest.mark.parametrize("path", ["id", "", "labels.", "spec.x", "notes", "Labels", ".labels", "*"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgument, match=f'"{path}"' if path != "*" else "field"):
        mask("spec", path)
