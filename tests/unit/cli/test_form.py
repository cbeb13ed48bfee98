"""`--format`: tables, JSON and templates."""

from __future__ import annotations

import json

import pytest

from orlop.cli import form
from orlop.errors import InvalidArgument

ROW = {
    "ID": "abc",
    "Labels": {"a": "1", "b": "2"},
    "State": {"Running": True, "Pid": 7},
    "Ports": [],
}
COLUMNS = {"CONTAINER ID": "ID", "LABELS": "Labels"}


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{.ID}}", "abc"),
        ("{{ .ID }} is {{.State.Running}}", "abc is true"),
        ("{{.Labels}}", "a=1,b=2"),
        ("{{.Labels.b}}", "2"),
        ("{{json .State}}", '{"Running": true, "Pid": 7}'),
        ("{{json .}}", json.dumps(ROW)),
        (r"{{.ID}}\t{{.State.Pid}}", "abc\t7"),
        ("[{{.Ports}}]", "[]"),
    ],
)
def test_templates(template: str, shown: str) -> None:
    assert form.filled(template, ROW) == shown


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Nope}}", 'there is no "Nope" in .Nope, but ID'),
        ("{{.ID.x}}", "but nothing"),
        ("{{range .Ports}}x{{end}}", "are known here"),
        ("{{if .ID}}", "are known here"),
    ],
)
def test_what_a_template_cannot_say(template: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words.replace(".", r"\.")):
        form.filled(template, ROW)


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    form.show([ROW], COLUMNS, "table")
    assert capsys.readouterr().out == "CONTAINER ID   LABELS\nabc            a=1,b=2\n"
    form.show([ROW], COLUMNS, r"table {{.ID}}\t{{.State.Pid}}")
    assert capsys.readouterr().out == "CONTAINER ID   STATE.PID\nabc            7\n"
    form.show([ROW], COLUMNS, "json")
    assert json.loads(capsys.readouterr().out) == ROW
