"""What one archive may make."""

from __future__ import annotations

import pytest

from orlop.errors import ResourceExhausted
from orlop.tar.bounds import Bounds


def test_implied_folders_count_as_entries() -> None:
    bounds = Bounds("layer", 3)
    bounds.entry()
    bounds.implied(b"a")
    bounds.implied(b"a/b")
    with pytest.raises(ResourceExhausted, match="layer has more than the 3 entries"):
        bounds.implied(b"a/b/c")


def test_so_are_they_themselves() -> None:
    bounds = Bounds("archive", 1 << 40)
    for number in range(100_000):
        bounds.implied(b"%d" % number)
    with pytest.raises(ResourceExhausted, match=r"archive lacks folders .* more than 100000"):
        bounds.implied(b"one more")


def test_their_paths_are_limited_together() -> None:
    bounds = Bounds("archive", 1 << 40)
    path = b"d/" * 2047
    for _ in range((64 << 20) // len(path)):
        bounds.implied(path)
    with pytest.raises(ResourceExhausted, match=r"archive lacks folders .* 64 MiB"):
        bounds.implied(path)
