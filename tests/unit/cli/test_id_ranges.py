"""`--userns`: ranges by name and by number."""

from __future__ import annotations

from pathlib import Path

import pytest

from orlop.cli.user_namespaces import parse
from orlop.errors import InvalidArgument, NotFound
from orlop.oci.spec import IdRange


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "subuid").write_text("# none\nsailor:100000:65536\ndockremap:300000:10\n0:7:1\n")
    (tmp_path / "subgid").write_text("sailor:200000:1000\nsailor:5000:1000\ndockremap:9:10\n0:8:1")
    return tmp_path


def test_ranges(folder: Path) -> None:
    assert parse("host") == parse("") == ([], [])
    assert parse("70:9") == ([IdRange(0, 70, 9)], [IdRange(0, 70, 9)])
    assert parse("sailor", folder) == (
        [IdRange(0, 100_000, 65536)], [IdRange(0, 200_000, 1000), IdRange(1000, 5000, 1000)],
    )  # fmt: skip
    assert parse("auto", folder) == ([IdRange(0, 300_000, 10)], [IdRange(0, 9, 10)])
    assert parse("root", folder) == ([IdRange(0, 7, 1)], [IdRange(0, 8, 1)])  # by its number


@pytest.mark.parametrize("text", ["1:0", f"1:{2**32}"])
def test_no_range(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


@pytest.mark.parametrize("text", ["nobody", "x y", "auto"])
def test_nobody_has_ranges(text: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="subuid"):
        parse(text, tmp_path)
