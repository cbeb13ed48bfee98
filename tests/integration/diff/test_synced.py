"""What a client asks to be on disk once its layer is applied."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.diff.service import DiffService
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.wire.services import diff_pb2 as pb
from orlop.wire.types_pb2 import Mount


@pytest.mark.parametrize("wanted", [True, False])
def test_where_it_was_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    """An overlay's upper folder, or the folder that is shown; of nothing else there is a folder."""
    told: list[str] = []
    monkeypatch.setattr("orlop.diff.written.sync_filesystem", told.append)
    upper, shown = tmp_path / "upper", tmp_path / "shown"
    upper.mkdir()
    shown.mkdir()
    options = ["workdir=/w", f"upperdir={upper}", "lowerdir=/a/upperdir=x"]

    def apply(*_: Any) -> Descriptor:
        told.append("applied")
        return Descriptor(media_type="m", digest="d", size=1)

    service = DiffService(SimpleNamespace(apply=apply), None)  # type: ignore[arg-type]
    request = pb.ApplyRequest(
        diff={"media_type": "m", "digest": "d", "size": 1},
        mounts=[
            Mount(type="overlay", source="overlay", options=options),
            Mount(type="bind", source=str(shown), options=["rw", "rbind"]),
            Mount(type="ext4", source="/dev/nothing"),
        ],
        sync_fs=wanted,
    )
    service.apply(request, CallContext(namespace="ns"))
    assert told == ["applied", *([str(upper), str(shown)] if wanted else [])]
