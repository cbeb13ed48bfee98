"""`--format`: a table, JSON, or a template in the small part of Docker's that people write.

A template holds `{{.Field}}`, `{{.Field.Inner}}` and `{{json .Field}}`; `{{json .}}` is all. After
`table ` it makes a table of these columns.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orlop.cli import table
from orlop.errors import InvalidArgument

Row = Mapping[str, Any]
_ACTION = re.compile(r"\{\{\s*(json\s+)?(\.[\w./-]*(?:\.[\w/-]+)*)\s*\}\}")
_ESCAPES = {r"\t": "\t", r"\n": "\n"}


def add_option(parser: argparse.ArgumentParser, default: str = "table") -> None:
    parser.add_argument("--format", default=default, metavar="FORMAT",
        help="table, json, or as '{{.ID}} {{json .Labels}}' (%(default)s)")  # fmt: skip


def show(rows: Sequence[Row], columns: Mapping[str, str], form: str) -> None:
    """Print rows as `form` says; `columns` are the header and field of each column of the table.

    Raises InvalidArgument for a template that asks for what is not there.
    """
    if form == "table":
        table.show(list(columns), [[_text(row[name]) for name in columns.values()] for row in rows])
    elif form == "json":
        for row in rows:
            print(json.dumps(row))
    elif form.startswith("table "):
        _show_table(rows, columns, form.removeprefix("table "))
    else:
        for row in rows:
            print(filled(form, row))


def _show_table(rows: Sequence[Row], columns: Mapping[str, str], template: str) -> None:
    headers = {field: header for header, field in columns.items()}
    names = [match[2].removeprefix(".") for match in _ACTION.finditer(template)]
    shown = [[filled(cell, row) for cell in _unescape(template).split("\t")] for row in rows]
    table.show([headers.get(name, name.upper()) for name in names], shown)


def filled(template: str, row: Row) -> str:
    """A template with a row's values in it."""
    rest = _ACTION.sub("", template)
    if "{{" in rest:
        raise InvalidArgument(
            f'template "{template}": only {{{{.Field}}}} and {{{{json .Field}}}} are known here'
        )
    return _ACTION.sub(lambda match: _value(row, match), _unescape(template))


def _value(row: Row, match: re.Match[str]) -> str:
    found: Any = row
    for name in filter(None, match[2].split(".")):
        if not isinstance(found, Mapping) or name not in found:
            known = ", ".join(found) if isinstance(found, Mapping) else "nothing"
            raise InvalidArgument(f'template: there is no "{name}" in {match[2]}, but {known}')
        found = found[name]
    return json.dumps(found) if match[1] else _text(found)


def _unescape(template: str) -> str:
    for escape, character in _ESCAPES.items():
        template = template.replace(escape, character)
    return template


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return "" if value is None else str(value)
