"""What others have named does not speak to the terminal."""

from __future__ import annotations

import pytest

from orlop.cli import table
from orlop.cli.each import told
from orlop.errors import NotFound, Unknown

_NAME = "a\x1b]0;b\x07c\udcffé"


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(["NAME"], [[_NAME], ["two\nlines"]])
    assert capsys.readouterr().out == "NAME\na?]0;b?c?é\ntwo?lines\n"


def test_errors() -> None:
    assert told(NotFound(f'"{_NAME}"')) == '"a?]0;b?c?é": not found'
    assert told(Unknown("one\n\ttwo\x1b")) == "one\n        two?"
