"""The matcher: a finite automaton whose states are found as texts need them.

The tree becomes a nondeterministic automaton (Thompson's construction). A state of the matcher is
the set of its states that the text read so far leads to, and remembers where each character leads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orlop.metadata.regex import chars
from orlop.metadata.regex.chars import Test
from orlop.metadata.regex.syntax import (
    Anchor,
    Choice,
    Node,
    One,
    Place,
    Repeat,
    Sequence,
    parse,
)

SIZE_MAX = 5_000
# How many steps the remembered states may hold together, before they are forgotten.
_KNOWN_MAX = 100_000

_ACCEPT = 0


@dataclass(frozen=True, slots=True)
class _Step:
    """A state of the nondeterministic automaton: after `test` of a character, or freely where
    `holds` (None = anywhere), on to `targets`."""

    test: Test | None
    holds: Place | None
    targets: tuple[int, ...]


@dataclass(slots=True)
class _State:
    """The steps that may come next, the kind of character before, and what is known of it."""

    steps: frozenset[int]
    before: str
    next: dict[str, _State] = field(default_factory=dict)


class Pattern:
    """A compiled expression; raises ValueError for one that is bad or too large.

    May be used by several threads at once.
    """

    def __init__(self, pattern: str) -> None:
        self._steps = [_Step(None, None, ())]
        self._start = self._build(parse(pattern), _ACCEPT)
        self._found = _State(frozenset((_ACCEPT,)), "")
        self._forget()

    def search(self, text: str) -> bool:
        """Whether the expression is found anywhere in `text`."""
        state = self._first
        for char in text:
            state = state.next.get(char) or self._advance(state, char)
            if state is self._found:
                return True
        return _ACCEPT in self._reach(state, "")

    def _forget(self) -> None:
        self._known: dict[tuple[frozenset[int], str], _State] = {}
        self._size = 0
        self._first = _State(frozenset((self._start,)), "")

    def _advance(self, state: _State, char: str) -> _State:
        reached = self._reach(state, char)
        if _ACCEPT in reached:
            following = self._found
        else:
            steps = frozenset(self._after(reached, char)) | {self._start}
            key = (steps, _kind(char))
            following = self._known.setdefault(key, _State(*key))
        self._size += len(following.steps)
        if self._size > _KNOWN_MAX:
            self._forget()
        state.next[char] = following
        return following

    def _after(self, reached: set[int], char: str) -> Iterable[int]:
        for number in reached:
            step = self._steps[number]
            if step.test is not None and step.test(char):
                yield from step.targets

    def _reach(self, state: _State, after: str) -> set[int]:
        """All steps that are reached freely from a state, when `after` is the next character."""
        reached = set(state.steps)
        waiting = list(reached)
        while waiting:
            step = self._steps[waiting.pop()]
            if step.test is not None:
                continue
            if step.holds is None or step.holds(state.before, after):
                fresh = [number for number in step.targets if number not in reached]
                reached.update(fresh)
                waiting.extend(fresh)
        return reached

    def _add(self, *targets: int, test: Test | None = None, holds: Place | None = None) -> int:
        # Every node of the tree makes at least one step, so this bounds the work as well.
        if len(self._steps) >= SIZE_MAX:
            raise ValueError("too large")
        self._steps.append(_Step(test, holds, targets))
        return len(self._steps) - 1

    def _build(self, node: Node, then: int) -> int:
        """Add the steps for `node` followed by the step `then`; returns where to enter them."""
        match node:
            case One(test):
                return self._add(then, test=test)
            case Anchor(holds):
                return self._add(then, holds=holds)
            case Choice(items):
                return self._add(*(self._build(item, then) for item in items))
            case Sequence(items):
                for item in reversed(items):
                    then = self._build(item, then)
                return then if items else self._add(then)
            case Repeat():
                return self._build_repeat(node, then)

    def _build_repeat(self, node: Repeat, then: int) -> int:
        entry = self._add(then)
        if node.most is None:
            body = self._build(node.item, entry)
            self._steps[entry] = _Step(None, None, (body, then))
        else:
            for _ in range(node.most - node.least):
                entry = self._add(self._build(node.item, entry), then)
        for _ in range(node.least):
            entry = self._build(node.item, entry)
        return entry


def _kind(char: str) -> str:
    """A character that stands for `char` in the eyes of any anchor after it."""
    if char == "\n":
        return "\n"
    return "_" if chars.is_word(char) else " "
