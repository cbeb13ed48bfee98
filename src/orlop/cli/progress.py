"""Progress of a transfer on standard error: lines, bars, or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orlop.cli import table
from orlop.cli.terminal import undisturbed

if TYPE_CHECKING:
    from orlop.client.streams import Progress

Show = Callable[["Progress"], None]
_TOTAL = "total"
_SAVED = "saved"


@contextmanager
def showing(args: argparse.Namespace) -> Iterator[Show | None]:
    """What shows progress as a command was asked to; None for not at all."""
    with shown("none" if args.quiet else args.progress) as show:
        yield show


@contextmanager
def shown(mode: str, *, plain: bool = True) -> Iterator[Show | None]:
    """As `mode` says; `auto` is bars on a terminal, and else lines, unless `plain` is False."""
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() else "plain" if plain else "none"
    if mode == "tty":
        bars = _Bars()
        try:
            with undisturbed():
                bars.start()
            yield bars.update
        finally:
            with undisturbed():
                bars.stop()
    elif mode == "plain":
        yield _Lines().update
    elif mode == "json":
        yield _json
    else:
        yield None


def _json(progress: Progress) -> None:
    """One object a line; the keys stay as they are."""
    line = json.dumps(
        {
            "event": progress.event,
            "name": progress.name,
            "done": progress.done,
            "total": progress.total,
            "digest": progress.digest,
        }
    )
    print(line, file=sys.stderr, flush=True)


class _Lines:
    """A line for each change of state, as logs want it."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def update(self, progress: Progress) -> None:
        if self._states.get(progress.name) == progress.event:
            return
        self._states[progress.name] = progress.event
        size = f" ({table.size(progress.total)})" if progress.total else ""
        name = f"{_short(progress.name)}: " if progress.name else ""
        print(f"{name}{progress.event}{size}", file=sys.stderr, flush=True)


class _Bars:
    """A bar for each object, and one for all together."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[state]}", markup=False),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, object] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def start(self) -> None:
        self._progress.start()

    def update(self, progress: Progress) -> None:
        if not progress.total:
            if not progress.name:
                self._progress.console.print(progress.event, markup=False, highlight=False)
            return
        if progress.event == _SAVED:
            return  # a name, not bytes
        done = progress.total if _is_over(progress.event) else progress.done
        self._sizes[progress.name] = done, progress.total
        self._set(_TOTAL, "", *map(sum, zip(*self._sizes.values(), strict=True)))
        self._set(progress.name, progress.event, done, progress.total)

    def _set(self, name: str, state: str, done: int, total: int) -> None:
        task = self._tasks.get(name)
        if task is None:
            task = self._progress.add_task(_short(name), total=total, state=state)
            self._tasks[name] = task
        self._progress.update(task, completed=done, total=total, state=state)  # type: ignore[arg-type]

    def stop(self) -> None:
        self._progress.stop()


def _is_over(event: str) -> bool:
    """Whether an object's bytes are all here, whatever is done with them next."""
    return event in {"complete", "already exists", "mounted", "extracting", "extracted"}


def _short(name: str) -> str:
    """`layer-sha256:0123456789ab` for an ingest reference; other names as they are."""
    kind, colon, digest = name.partition(":")
    return f"{kind}:{digest[:12]}" if colon and len(digest) >= 64 else name
