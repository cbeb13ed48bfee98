"""The syntax: from an expression to a tree of nodes (https://github.com/google/re2/wiki/Syntax)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from orlop.metadata.regex import chars
from orlop.metadata.regex.chars import Test

REPEAT_MAX = 1000
DEPTH_MAX = 100

# What an anchor asks about a place: the characters before and after it, "" at an end of the text.
Place = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class One:
    """One character that passes the test."""

    test: Test


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place between characters."""

    holds: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    """All items, one after another."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any of the items."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The item from `least` to `most` times; None is without end."""

    item: Node
    least: int
    most: int | None


Node = One | Anchor | Sequence | Choice | Repeat

_QUOTED = re.compile(r"\\(?:Q(.*?)(?:\\E|\Z)|(.))", re.DOTALL)
_REPEAT = re.compile(r"(?:([*+?])|\{(\d+)(?:(,)(\d*))?\})\??")
_GROUP = re.compile(r"\(\?(?:P?<\w+>|([imsU]*)(?:-([imsU]+))?([:)]))")
_CLASS_NAME = re.compile(r"\[:(\^?)(\w+):\]")
_CATEGORY = re.compile(r"\\([pP])(?:\{(\^?)(\w+)\}|(\w))")
_CODE = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))")
_CONTROL = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_MARKS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def parse(pattern: str) -> Node:
    """The tree of an expression; raises ValueError, saying what is wrong and where."""
    return _Parser(_QUOTED.sub(_unquoted, pattern)).parse()


def _unquoted(found: re.Match[str]) -> str:
    r"""The text of `\Q…\E` with each mark escaped; any other escape as it is."""
    if found[2] is not None:
        return found[0]
    return re.sub(r"[^\w]", lambda mark: "\\" + mark[0], found[1], flags=re.ASCII)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._flags: frozenset[str] = frozenset()
        self._depth = 0

    def parse(self) -> Node:
        node = self._choice()
        if self._at < len(self._text):
            self._fail('")" without "("')
        return node

    def _choice(self) -> Node:
        items = [self._sequence()]
        while self._take("|"):
            items.append(self._sequence())
        return items[0] if len(items) == 1 else Choice(tuple(items))

    def _sequence(self) -> Node:
        items: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if _REPEAT.match(self._text, self._at):
                self._fail("nothing to repeat")
            if (item := self._atom()) is not None:
                items.append(self._repeated(item))
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _repeated(self, item: Node) -> Node:
        found = self._match(_REPEAT)
        if found is None:
            return item
        mark, least, comma, most = found.groups()
        if _REPEAT.match(self._text, self._at):
            self._fail("repeat of a repeat")
        if mark is not None:
            return Repeat(item, *_MARKS[mark])
        low = int(least)
        high = int(most) if most else None if comma else low
        if max(low, high or 0) > REPEAT_MAX or (high is not None and high < low):
            self._fail("bad repeat count")
        return Repeat(item, low, high)

    def _atom(self) -> Node | None:
        char = self._text[self._at]
        if char == "(":
            return self._group()
        if char == "[":
            return One(self._class())
        if char == "\\":
            return self._escape()
        self._at += 1
        if char == ".":
            return One(chars.anything if "s" in self._flags else chars.not_newline)
        if char == "^":
            return Anchor(_line_start if "m" in self._flags else _text_start)
        if char == "$":
            return Anchor(_line_end if "m" in self._flags else _text_end)
        return One(self._cased(chars.single(char)))

    def _cased(self, test: Test) -> Test:
        # Before any negation: "not a" must mean neither case.
        return chars.folded(test) if "i" in self._flags else test

    def _group(self) -> Node | None:
        """A group, or None for flags that hold until the end of the group around them."""
        outer = self._flags
        if self._text.startswith("(?", self._at):
            found = self._match(_GROUP)
            if found is None:
                self._fail('unknown group "(?"')
            if found[3] is not None:
                self._flags = outer.union(found[1]).difference(found[2] or "")
            if found[3] == ")":
                return None
        else:
            self._at += 1
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._fail("groups are nested too deeply")
        node = self._choice()
        if not self._take(")"):
            self._fail('"(" without ")"')
        self._depth -= 1
        self._flags = outer
        return node

    def _escape(self) -> Node:
        letter = self._text[self._at + 1 : self._at + 2]
        if letter in _ANCHORS:
            self._at += 2
            return Anchor(_ANCHORS[letter])
        return One(self._shorthand() or self._cased(chars.single(self._escaped())))

    def _shorthand(self) -> Test | None:
        r"""`\d`, `\pL` and the like, if one stands here."""
        test = chars.SHORTHANDS.get(self._text[self._at : self._at + 2])
        if test is not None:
            self._at += 2
            return test
        found = self._match(_CATEGORY)
        if found is None:
            return None
        test = chars.category(found[3] or found[4])
        if test is None:
            self._fail(f'unknown category "{found[3] or found[4]}"')
        test = self._cased(test)
        return chars.negated(test) if (found[1] == "P") != bool(found[2]) else test

    def _escaped(self) -> str:
        """The one character that an escape stands for."""
        if found := self._match(_CODE):
            code = int(found[3], 8) if found[3] else int(found[1] or found[2], 16)
            if code > 0x10FFFF:
                self._fail("no such character")
            return chr(code)
        char = self._text[self._at + 1 : self._at + 2]
        if not char or (char not in _CONTROL and (char.isalnum() or ord(char) > 127)):
            self._fail("unknown escape")
        self._at += 2
        return _CONTROL.get(char, char)

    def _class(self) -> Test:
        start = self._at
        self._at += 1
        negate = self._take("^")
        tests = [self._class_item()]
        while not self._take("]"):
            if self._at >= len(self._text):
                self._fail('"[" without "]"', start)
            tests.append(self._class_item())
        return chars.negated(chars.either(tests)) if negate else chars.either(tests)

    def _class_item(self) -> Test:
        if found := self._match(_CLASS_NAME):
            test = chars.NAMED.get(found[2])
            if test is None:
                self._fail(f'unknown class "{found[2]}"')
            test = self._cased(test)
            return chars.negated(test) if found[1] else test
        if shorthand := self._shorthand():
            return shorthand
        low = high = self._class_char()
        if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
            self._at += 1
            high = self._class_char()
        if high < low:
            self._fail("bad range")
        return self._cased(chars.between(low, high))

    def _class_char(self) -> str:
        if self._at >= len(self._text):
            self._fail('"[" without "]"')
        if self._text[self._at] == "\\":
            return self._escaped()
        self._at += 1
        return self._text[self._at - 1]

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _take(self, char: str) -> bool:
        if not self._text.startswith(char, self._at):
            return False
        self._at += 1
        return True

    def _fail(self, problem: str, at: int | None = None) -> NoReturn:
        raise ValueError(f"{problem}, position {(self._at if at is None else at) + 1}")


def _text_start(before: str, after: str) -> bool:
    return not before


def _text_end(before: str, after: str) -> bool:
    return not after


def _line_start(before: str, after: str) -> bool:
    return before in ("", "\n")


def _line_end(before: str, after: str) -> bool:
    return after in ("", "\n")


def _word_edge(before: str, after: str) -> bool:
    return chars.is_word(before) != chars.is_word(after)


def _no_word_edge(before: str, after: str) -> bool:
    return not _word_edge(before, after)


_ANCHORS: dict[str, Place] = {
    "A": _text_start,
    "z": _text_end,
    "b": _word_edge,
    "B": _no_word_edge,
}
