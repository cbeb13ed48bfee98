"""Tests of one character; where RE2 counts only ASCII letters, so do these."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterable

Test = Callable[[str], bool]

_WORD = frozenset(string.ascii_letters + string.digits + "_")
_CATEGORY = re.compile(r"C[cfos]?|L[ulmot]?|M[nce]?|N[dlo]?|P[cdsefio]?|S[mcko]?|Z[slp]?")


def anything(char: str) -> bool:
    return True


def not_newline(char: str) -> bool:
    return char != "\n"


def is_word(char: str) -> bool:
    """Whether the character is a letter, digit or underscore; "" is none."""
    return char in _WORD


def single(wanted: str) -> Test:
    return lambda char: char == wanted


def between(low: str, high: str) -> Test:
    return lambda char: low <= char <= high


def among(wanted: str) -> Test:
    return frozenset(wanted).__contains__


def negated(test: Test) -> Test:
    return lambda char: not test(char)


def either(tests: Iterable[Test]) -> Test:
    choices = tuple(tests)
    return choices[0] if len(choices) == 1 else lambda char: any(test(char) for test in choices)


def folded(test: Test) -> Test:
    """The test with upper and lower case being the same."""

    def passes(char: str) -> bool:
        cases = (char, char.lower(), char.upper())
        return any(test(case) for case in cases if len(case) == 1)

    return passes


def category(name: str) -> Test | None:
    """A Unicode general category such as `L` or `Lu`; None for an unknown one."""
    if not _CATEGORY.fullmatch(name):
        return None
    return lambda char: unicodedata.category(char).startswith(name)


NAMED: dict[str, Test] = {
    "alnum": among(string.ascii_letters + string.digits),
    "alpha": among(string.ascii_letters),
    "ascii": between("\0", "\x7f"),
    "blank": among("\t "),
    "cntrl": either((between("\0", "\x1f"), single("\x7f"))),
    "digit": among(string.digits),
    "graph": between("!", "~"),
    "lower": among(string.ascii_lowercase),
    "print": between(" ", "~"),
    "punct": among(string.punctuation),
    "space": among("\t\n\v\f\r "),
    "upper": among(string.ascii_uppercase),
    "word": is_word,
    "xdigit": among(string.hexdigits),
}
_SPACE = among("\t\n\f\r ")
SHORTHANDS: dict[str, Test] = {
    r"\d": NAMED["digit"],
    r"\D": negated(NAMED["digit"]),
    r"\s": _SPACE,
    r"\S": negated(_SPACE),
    r"\w": is_word,
    r"\W": negated(is_word),
}
