import argparse
from pathlib import Path

import pytest

from orlop.cli import options, run_values, table
from orlop.errors import InvalidArgument
from orlop.oci.spec import Bind


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("4k", 4096), ("1M", 1 << 20), ("2GiB", 2 << 30)]
)
def test_memory(text: str, size: int) -> None:
    assert options.memory(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5g", "lots"])
def test_bad_memory(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        options.memory(text)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "yes")
    monkeypatch.delenv("ABSENT", raising=False)
    env = options.environment(["A=1", "B=x=y", "OURS", "ABSENT", "EMPTY="])
    assert env == {"A": "1", "B": "x=y", "OURS": "yes", "EMPTY": ""}
    with pytest.raises(InvalidArgument):
        options.environment(["=1"])


def test_bind(tmp_path: Path) -> None:
    assert run_values.bind(f"{tmp_path}:/x:ro") == Bind(str(tmp_path), "/x", read_only=True)
    for bad in ("name:/x", f"{tmp_path}:x", f"{tmp_path}", f"{tmp_path}/none:/x", "/a:/b:huh"):
        with pytest.raises(InvalidArgument):
            run_values.bind(bad)


def test_sizes_and_times() -> None:
    assert table.size(999) == "999 B"
    assert table.size(1536) == "1.5 KiB"
    assert table.duration(0.2) == "less than a second"
    assert table.duration(61) == "1 minute"
    assert table.duration(7300) == "2 hours"
