"""What a check that cannot be begun leaves: nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from orlop.health.probe import _Run


def test_a_check_for_which_there_are_no_descriptors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "eventfd", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    task = SimpleNamespace(namespace="ns")
    with pytest.raises(OSError, match="open files"), _Run(task, "one", tmp_path / "fifo"):  # type: ignore[arg-type]
        pass
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
