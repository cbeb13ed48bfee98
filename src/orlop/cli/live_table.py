"""`orlop top` without a container: all of them, sorted, each second anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from orlop.cli import table
from orlop.cli.screen import BOLD, END, REVERSE, Screen, whole_screen
from orlop.client import Connection, containers, names
from orlop.client.stats import Rates, Usage, rates, share, usage

_PAUSE = 1.0
_NAME_LEAST, _NAME_MOST = 12, 24
_NUMBERS = 25  # columns that the numbers of every terminal take
_HEAD, _FOOT = 2, 1  # lines above and below the containers
_HELP = "q quit  ←→ or c m n b p a sort  r reverse  ↑↓ scroll"


class Row(NamedTuple):
    """A container as it is shown: `cpu` of one processor, the rest in bytes, or bytes a second."""

    name: str
    cpu: float
    memory: int
    limit: int
    rates: Rates
    pids: int


class _Column(NamedTuple):
    """`key` sorts by it; it is there in terminals of at least `needs` columns."""

    key: str
    title: str
    width: int
    needs: int
    text: Callable[[Row], str]
    order: Callable[[Row], float]


def _speed(count: float) -> str:
    return f"{table.size(count)}/s" if count >= 1 else "-"


_COLUMNS = (
    _Column("c", "CPU", 8, 0, lambda row: f"{row.cpu:.1%}", lambda row: row.cpu),
    _Column("m", "MEMORY", 11, 0, lambda row: table.size(row.memory), lambda row: row.memory),
    _Column("", "LIMIT", 11, 112, lambda row: table.size(row.limit) if row.limit else "-",
            lambda row: row.limit),
    _Column("n", "NET IN", 13, 75, lambda row: _speed(row.rates.received),
            lambda row: row.rates.received + row.rates.sent),
    _Column("", "NET OUT", 13, 75, lambda row: _speed(row.rates.sent), lambda row: row.rates.sent),
    _Column("b", "READ", 13, 101, lambda row: _speed(row.rates.read),
            lambda row: row.rates.read + row.rates.written),
    _Column("", "WRITTEN", 13, 101, lambda row: _speed(row.rates.written),
            lambda row: row.rates.written),
    _Column("p", "PIDS", 6, 0, lambda row: str(row.pids), lambda row: row.pids),
)  # fmt: skip
_BY_NAME = -1
_SCROLLS = {"up": -1, "k": -1, "down": 1, "j": 1, "home": -(1 << 30), "end": 1 << 30}


class View:
    """What the user has chosen to see: the order, and from where on."""

    def __init__(self) -> None:
        self._column = 0
        self._reverse = False
        self._top = 0

    def press(self, key: str, page: int) -> bool:
        """Take a key; whether to go on. `page` is how many containers fit."""
        if key in ("q", "Q", END):
            return False
        by_letter = {each.key: number for number, each in enumerate(_COLUMNS) if each.key}
        if key in ("left", "right"):
            step = 1 if key == "right" else -1
            self._sort((self._column + 1 + step) % (len(_COLUMNS) + 1) - 1)
        elif key == "a":
            self._sort(_BY_NAME)
        elif key in by_letter:
            self._sort(by_letter[key])
        elif key == "r":
            self._reverse = not self._reverse
        else:
            pages = {"page up": -page, "page down": page, " ": page}
            self._top += _SCROLLS.get(key, pages.get(key, 0))
        return True

    def _sort(self, column: int) -> None:
        self._column, self._reverse, self._top = column, False, 0

    def picture(self, rows: Sequence[Row], columns: int, lines: int) -> tuple[list[str], list[str]]:
        """The lines, and the style of each: a summary, titles, containers, and the keys."""
        page = page_of(lines)
        self._top = max(0, min(self._top, len(rows) - page))
        shown = self._sorted(rows)[self._top : self._top + page]
        chosen = [column for column in _COLUMNS if columns >= column.needs]
        width = max(_NAME_LEAST, min(_NAME_MOST, columns - _NUMBERS))
        body = [_line(row, width, chosen) for row in shown]
        body += [""] * (page - len(body))
        titles = self._titles(width, chosen).ljust(columns)
        text = [_summary(rows), titles, *body, self._place(len(rows), page)]
        return text, [BOLD, REVERSE, *[""] * page, ""]

    def _sorted(self, rows: Sequence[Row]) -> list[Row]:
        by_name = sorted(rows, key=lambda row: row.name)
        if self._column == _BY_NAME:
            return by_name[::-1] if self._reverse else by_name
        order = _COLUMNS[self._column].order
        return sorted(by_name, key=order, reverse=not self._reverse)

    def _titles(self, width: int, chosen: Sequence[_Column]) -> str:
        by_name = self._column == _BY_NAME
        arrow = "↑" if self._reverse != by_name else "↓"
        sorted_by = None if by_name else _COLUMNS[self._column]
        name = f"{arrow if by_name else ''}CONTAINER"
        cells = (
            f"{arrow + each.title if each is sorted_by else each.title:>{each.width}}"
            for each in chosen
        )
        return f"{name:<{width}}{''.join(cells)}"

    def _place(self, count: int, page: int) -> str:
        if count <= page:
            return _HELP
        return f"{self._top + 1}-{min(self._top + page, count)} of {count}  {_HELP}"


def _line(row: Row, width: int, chosen: Sequence[_Column]) -> str:
    name = row.name if len(row.name) < width else f"{row.name[: width - 2]}…"
    return f"{name:<{width}}" + "".join(f"{each.text(row):>{each.width}}" for each in chosen)


def page_of(lines: int) -> int:
    """How many containers fit into so many lines."""
    return max(1, lines - _HEAD - _FOOT)


def _summary(rows: Sequence[Row]) -> str:
    running = f"{len(rows)} container{'' if len(rows) == 1 else 's'} running"
    cpu, memory = sum(row.cpu for row in rows), sum(row.memory for row in rows)
    return f"{time.strftime('%H:%M:%S')}  {running}, CPU {cpu:.1%}, memory {table.size(memory)}"


def run(connection: Connection) -> int:
    """Show them until the user has seen enough. Raises InvalidArgument without a terminal."""
    with whole_screen() as screen:
        view, looks = View(), _Looks(connection)
        while _show(screen, view, looks.rows()):
            pass
    return 0


def _show(screen: Screen, view: View, rows: Sequence[Row]) -> bool:
    """Draw, and do what is typed until the next look is due; whether there is to be one."""
    due = time.monotonic() + _PAUSE
    while True:
        columns, lines = screen.size
        screen.draw(*view.picture(rows, columns, lines))
        for key in screen.keys(due - time.monotonic()):
            if not view.press(key, page_of(lines)):
                return False
        if time.monotonic() >= due:
            return True


class _Looks:
    """What containers use since the look before."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before: Mapping[str, Usage] = {}
        self._called: Mapping[str, str] = {}

    def rows(self) -> list[Row]:
        now = {each.id: each for each in usage(self._connection)}
        if not self._called.keys() >= now.keys():  # records are long: only for who is new
            records = containers.list_records(self._connection)
            self._called = {each.id: names.of(each) for each in records}
        rows = [self._row(self._before.get(each.id, each), each) for each in now.values()]
        self._before = now
        return rows

    def _row(self, past: Usage, now: Usage) -> Row:
        name = self._called.get(now.id, now.id)
        cpu, speeds = share(past, now), rates(past, now)
        return Row(name, cpu, now.memory, now.memory_limit, speeds, now.pids)
