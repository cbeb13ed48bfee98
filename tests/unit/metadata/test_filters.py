from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.errors import InvalidArgument
from orlop.metadata import filters

FIELDS = {"name": "docker.io/x:1", "target.digest": "sha256:abc", "empty": ""}
LABELS = {"a.b/c": "v 1,2", "plain": "w", "": "nothing"}


def matches(*texts: str) -> bool:
    return filters.parse(texts).matches(filters.record(FIELDS, labels=LABELS))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name==docker.io/x:1",
        'name=="docker.io/x:1"',
        " name == docker.io/x:1 , labels.plain ",
        "name!=other",
        "missing!=other",
        "missing~=^$",
        "name~=x:[0-9]+$",
        r"name~=/^docker.io\//",
        "name~=|^docker.io/x|",
        'name~="^docker\\\\.io"',
        "target.digest==sha256:abc",
        'target."digest"==sha256:abc',
        'labels."a.b/c"=="v 1,2"',
        'labels.a."b/c"',
        "labels.plain==w,name",
        r'labels.plain=="\x77"',
        r'labels.plain=="\167"',
        r'labels.plain=="\u0077"',
        r'labels.plain=="\U00000077"',
        "labels",
    ],
)
def test_matching(text: str) -> None:
    assert matches(text)


@pytest.mark.parametrize(
    "text",
    [
        "empty",
        "missing",
        "missing==x",
        'missing==""',
        'missing!=""',
        "name!=docker.io/x:1",
        "name~=^x",
        "labels.nope",
        "name,missing",
        "target",
    ],
)
def test_not_matching(text: str) -> None:
    assert not matches(text)


def test_several_filters_are_alternatives() -> None:
    assert matches()
    assert matches("missing", "name")
    assert matches("missing", "")
    assert not matches("missing", "name==nope")
    assert filters.parse([]).everything
    assert filters.parse(["x", ""]).everything
    assert not filters.parse(["x"]).everything


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("name=", 5),
        ("name==", 7),
        ("name===x", 5),
        ("name=x", 5),
        ("name!x", 5),
        ("name==/x", 7),
        ("name==|x|", 7),
        ("/name/", 1),
        ('"name', 1),
        ('name=="x', 7),
        ('name=="x\ny"', 7),
        ('name=="\\q"', 8),
        ('name=="\\ud800"', 8),
        ('name=="\\x4"', 8),
        ('name=="\\/"', 8),
        ("name,", 6),
        (",name", 1),
        (".name", 1),
        ("name.", 6),
        ("name other", 6),
        ("name==a b", 9),
        (" ", 2),
        ("näme", 2),
    ],
)
def test_errors_tell_the_position(text: str, position: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"position {position},"):
        filters.parse(["name", text])


def test_a_bad_expression_is_logged_and_never_matches(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not matches("name~=(")
    assert '"("' in caplog.text


def quoted(text: str, quote: str = '"') -> str:
    out = text.replace("\\", "\\\\").replace(quote, f"\\{quote}").replace("\n", "\\n")
    return f"{quote}{out}{quote}"


@given(st.text() | st.text('ab._=!~,"/|\\ \n0x', max_size=20))
def test_any_text_parses_or_is_an_invalid_argument(text: str) -> None:
    try:
        parsed = filters.parse([text])
    except InvalidArgument as error:
        assert "position" in str(error)
    else:
        parsed.matches(filters.record(FIELDS, labels=LABELS))


@given(st.text(min_size=1), st.text())
def test_what_is_quoted_comes_back(key: str, value: str) -> None:
    lookup = filters.record({}, labels={key: value})
    equal = filters.parse([f"labels.{quoted(key)}=={quoted(value)}"])
    assert equal.matches(lookup)
    assert not filters.parse([f"labels.{quoted(key)}!={quoted(value)}"]).matches(lookup)
    assert not equal.matches(filters.record({}, labels={key: value + "x"}))


@given(st.lists(st.sampled_from(["a", "b", "/", "|", '"', "\n", "é"])), st.sampled_from('"/|'))
def test_each_quote_around_an_expression(characters: list[str], quote: str) -> None:
    text = "".join(characters)
    literal = text.replace("|", "[|]")
    parsed = filters.parse([f"name~={quoted(f'^{literal}$', quote)}"])
    assert parsed.matches(filters.record({"name": text}))
    assert not parsed.matches(filters.record({"name": text + "x"}))
