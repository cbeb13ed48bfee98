"""Pull an image with live progress: a bar per layer on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys

from orlop.client import Connection
from orlop.client.pull import pull_image
from orlop.client.streams import Progress


def pull(
    connection: Connection,
    name: str,
    *,
    platform: str = "",
    snapshotter: str = "",
    unpack: bool = True,
    plain_http: bool = False,
    quiet: bool = False,
) -> None:
    """Pull the image `name` (a full reference) into the daemon and unpack it."""
    show = sys.stderr.isatty() and not quiet
    bars = _Bars() if show else None
    try:
        pull_image(
            connection,
            name,
            platform=platform,
            snapshotter=snapshotter,
            unpack=unpack,
            plain_http=plain_http,
            on_progress=bars.update if bars else None,
        )
    finally:
        if bars:
            bars.stop()


class _Bars:
    """A line per object of the pull."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[state]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, object] = {}
        self._progress.start()

    def update(self, progress: Progress) -> None:
        if not progress.total:
            if not progress.name:
                self._progress.console.print(progress.event)
            return
        task = self._tasks.get(progress.name)
        if task is None:
            task = self._progress.add_task(_short(progress.name), total=progress.total, state="")
            self._tasks[progress.name] = task
        self._progress.update(
            task,  # type: ignore[arg-type]
            completed=progress.done,
            total=progress.total,
            state=progress.event,
        )

    def stop(self) -> None:
        self._progress.stop()


def _short(name: str) -> str:
    """`layer-sha256:0123456789ab` for an ingest reference."""
    kind, colon, digest = name.partition(":")
    return f"{kind}:{digest[:12]}" if colon else name
