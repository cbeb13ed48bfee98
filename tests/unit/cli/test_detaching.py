"""Detach keys: Docker's grammar, and the watch for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orlop.cli.detaching import KeyWatch, keys
from orlop.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@", b"\0"),
        ("a,b,1", b"ab1"),
        ("CTRL-A,x", b"\x01x"),
        ("ctrl-[,ctrl-],ctrl-\\,ctrl-^,ctrl-_", b"\x1b\x1d\x1c\x1e\x1f"),
        ("del", b"\x7f"),
    ],
)
def test_the_grammar(text: str, wanted: bytes) -> None:
    assert keys(text) == wanted


@pytest.mark.parametrize("text", ["ctrl-", "ab", "ctrl-1", ",", "ctrl-p,,x", "é"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(InvalidArgument, match="detach key"):
        keys(text)


def test_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert keys("") == b"\x10\x11"
    (tmp_path / "config.json").write_text('{"detachKeys": "ctrl-x,z"}')
    assert keys("") == b"\x18z"
    (tmp_path / "config.json").write_text("[]")
    assert keys("") == b"\x10\x11"


def test_the_watch_passes_on_all_but_the_keys() -> None:
    watch = KeyWatch(b"\x10\x11")
    assert watch.feed(b"abc") == (b"abc", False)
    assert watch.feed(b"\x10") == (b"", False)
    assert watch.feed(b"\x10") == (b"\x10", False)
    assert watch.feed(b"x") == (b"\x10x", False)
    assert watch.feed(b"y\x10\x11z") == (b"y", True)


def test_a_sequence_may_begin_within_itself() -> None:
    watch = KeyWatch(b"aab")
    assert watch.feed(b"aaab") == (b"a", True)
