"""What an import keeps of the documents of an archive."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.errors import ResourceExhausted
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor, Platform
from orlop.rpc import CallContext
from orlop.transfer import documents
from orlop.transfer.archive.stored import StoredParts
from orlop.transfer.archive.tree import Tree

AMD64, ARM64, S390X = (Platform(each, "linux") for each in ("amd64", "arm64", "s390x"))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[StoredParts]:
    database = Database(tmp_path / "meta.db")
    content = ContentStore(database, tmp_path / "content", Exchange())
    yield StoredParts(content, "ns", "", CallContext(), lambda _: None)
    database.close()


def _put(parts: StoredParts, media_type: str, **document: object) -> Descriptor:
    return parts.put_document(json.dumps(document).encode(), media_type)


def _listed(wanted: Descriptor, **more: object) -> dict[str, object]:
    return {"mediaType": wanted.media_type, "digest": wanted.digest, "size": wanted.size, **more}


def _manifest(parts: StoredParts, platform: Platform) -> Descriptor:
    where = {"os": platform.os, "architecture": platform.architecture}
    config = _listed(_put(parts, mediatypes.OCI_CONFIG, **where))
    notes = {"note": "n" * 2000}
    return _put(
        parts, mediatypes.OCI_MANIFEST, schemaVersion=2, config=config, layers=[], annotations=notes
    )


def _index(parts: StoredParts, *manifests: dict[str, object]) -> Descriptor:
    return _put(parts, mediatypes.OCI_INDEX, schemaVersion=2, manifests=manifests)


@pytest.mark.parametrize(
    ("wanted", "fit"), [((AMD64,), True), ((S390X,), True), ((AMD64, S390X), False), ((), False)]
)
def test_only_what_serves_a_platform_takes_room(
    parts: StoredParts, monkeypatch: pytest.MonkeyPatch, wanted: Sequence[Platform], fit: bool
) -> None:
    monkeypatch.setattr(documents, "_KEPT_MAX", 4_000)
    made = [_manifest(parts, each) for each in (AMD64, S390X)]
    target = _index(parts, *map(_listed, made))  # which does not tell for which platforms they are
    tree = Tree(parts, wanted)
    if fit:
        assert [each.platform for each in tree.images(target)] == list(wanted)
    else:
        with pytest.raises(ResourceExhausted, match="more than 4000 bytes"):
            tree.images(target)


def test_what_serves_two_platforms_takes_room_once(
    parts: StoredParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_KEPT_MAX", 4_000)
    made = _manifest(parts, AMD64)
    platforms = [{"os": "linux", "architecture": each} for each in ("amd64", "arm64")]
    target = _index(parts, *(_listed(made, platform=each) for each in platforms))
    assert [each.descriptor.digest for each in Tree(parts, (AMD64, ARM64)).images(target)] == [
        made.digest
    ]
