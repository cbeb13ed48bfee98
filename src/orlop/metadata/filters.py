r"""List filters: the small language in which a client says which records it wants.

    filter   = selector *("," selector)               all must match
    selector = path [("==" / "!=" / "~=") value]      without operator: the field is present
    path     = field *("." field)
    field    = 1*(letter / digit / "_") / quoted
    value    = quoted / a run without space or comma

`quoted` is in double quotes with Go's escapes (`\n`, `\"`, `\x41`, `\101`, `\u00e9`); a regular
expression, the right side of `~=`, may also stand between slashes or bars. A call takes several
filters: a record must match any one of them, and no filter (or an empty one) matches everything.
An absent field counts as "" for `!=` and `~=`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from orlop.errors import InvalidArgument
from orlop.metadata.regex import Pattern

Path = tuple[str, ...]
Lookup = Callable[[Path], str | None]
Test = Callable[[str | None], bool]

_log = logging.getLogger(__name__)

_SPACE = re.compile(r"\s*")
_FIELD = re.compile(r"[A-Za-z0-9_]+")
_OPERATOR = re.compile(r"[=!~]+")
_BARE_VALUE = re.compile(r"[^\s,]+")
_PLAIN = re.compile(r'[^\\"/|\n]+')
_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-3][0-7]{2})|(.))"
)
_ESCAPED = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\",
}  # fmt: skip
_QUOTES = ('"', "/", "|")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Selector:
    """One condition: a field's path and the test its value must pass (None = absent)."""

    path: Path
    test: Test


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed list of filters: any of `alternatives` must match, each by all its selectors."""

    alternatives: tuple[tuple[Selector, ...], ...]

    @property
    def everything(self) -> bool:
        """Whether every record matches, whatever it holds."""
        return not all(self.alternatives)

    def matches(self, lookup: Lookup) -> bool:
        """Whether the record whose fields `lookup` tells (None = absent) is wanted."""
        return any(
            all(selector.test(lookup(selector.path)) for selector in selectors)
            for selectors in self.alternatives
        )


def parse(filters: Iterable[str]) -> Filter:
    """The filter that several filter strings make.

    Raises InvalidArgument, saying where, for one that does not parse. A regular expression that
    does not compile is logged and matches nothing.
    """
    return Filter(tuple(_Parser(text).parse() for text in filters) or ((),))


def record(fields: Mapping[str, str], **maps: Mapping[str, str]) -> Lookup:
    """A lookup over a record's plain fields (dotted names; "" is absent) and maps.

    The path after a map's name is the key whole: `labels.a.b` is the label `a.b`.
    """

    def lookup(path: Path) -> str | None:
        found = maps.get(path[0])
        if found is not None:
            return found.get(".".join(path[1:]))
        return fields.get(".".join(path)) or None

    return lookup


class _Parser:
    """Reads one filter string from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> tuple[Selector, ...]:
        if not self._text:
            return ()
        selectors = [self._selector()]
        while self._take(","):
            selectors.append(self._selector())
        if self._at < len(self._text):
            self._fail("expected a comma or the end")
        return tuple(selectors)

    def _selector(self) -> Selector:
        path = [self._field()]
        while self._take("."):
            path.append(self._field())
        return Selector(tuple(path), self._test())

    def _field(self) -> str:
        self._skip_space()
        if self._at_quote():
            return self._quoted('"')
        return self._run(_FIELD) or self._fail("expected a field")

    def _test(self) -> Test:
        self._skip_space()
        if self._peek() in (",", ""):
            return _is_present
        start = self._at
        operator = self._run(_OPERATOR)
        if operator not in _OPERATORS:
            self._fail('expected "==", "!=" or "~="', start)
        make, quotes = _OPERATORS[operator]
        return make(self._value(quotes))

    def _value(self, quotes: Sequence[str]) -> str:
        self._skip_space()
        if self._at_quote():
            return self._quoted(quotes)
        return self._run(_BARE_VALUE) or self._fail("expected a value")

    def _quoted(self, quotes: Sequence[str]) -> str:
        """The text between the quotes at this place; `quotes` are the marks allowed here."""
        start, quote = self._at, self._peek()
        if quote not in quotes:
            self._fail("this quote is not for here")
        self._at += 1
        parts: list[str] = []
        while (char := self._peek()) != quote:
            if char in ("", "\n"):
                self._fail("quote is not closed", start)
            if char == "\\":
                parts.append(self._escape(quote))
            else:
                parts.append(self._run(_PLAIN) or self._next())
        self._at += 1
        return "".join(parts)

    def _escape(self, quote: str) -> str:
        found = _ESCAPE.match(self._text, self._at)
        if found is None:
            self._fail("unknown escape")
        hexadecimal = found[1] or found[2] or found[3]
        number = int(hexadecimal, 16) if hexadecimal else int(found[4] or "0", 8)
        single = quote if found[5] == quote else _ESCAPED.get(found[5] or "")
        if (found[5] and single is None) or number > 0x10FFFF or 0xD800 <= number < 0xE000:
            self._fail("unknown escape")
        self._at = found.end()
        return chr(number) if single is None else single

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _at_quote(self) -> bool:
        return self._text.startswith(_QUOTES, self._at)

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, char: str) -> bool:
        self._skip_space()
        if self._peek() != char:
            return False
        self._at += 1
        return True

    def _run(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _skip_space(self) -> None:
        self._run(_SPACE)

    def _fail(self, problem: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        near = self._text[at : at + _SHOWN]
        where = f'at "{near}"' if near else "at its end"
        raise InvalidArgument(f'filter "{self._text}": {problem}, position {at + 1}, {where}')


def _is_present(value: str | None) -> bool:
    return value is not None


def _equals(wanted: str) -> Test:
    return lambda value: value == wanted


def _differs(unwanted: str) -> Test:
    return lambda value: (value or "") != unwanted


def _finds(pattern: str) -> Test:
    try:
        compiled = Pattern(pattern)
    except ValueError as error:
        _log.warning('filter: regular expression "%s" never matches: %s', pattern, error)
        return lambda value: False
    return lambda value: compiled.search(value or "")


# Each operator's test, and the quotes that its value may stand in.
_OPERATORS: dict[str, tuple[Callable[[str], Test], Sequence[str]]] = {
    "==": (_equals, '"'),
    "!=": (_differs, '"'),
    "~=": (_finds, _QUOTES),
}
