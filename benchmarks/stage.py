"""What the comparisons stand on: both daemons, a registry, and the images in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from benchmarks import images
from benchmarks.api import Api
from benchmarks.measure import Budget, Result, medians, seconds
from benchmarks.rivals import Rival

_names = count()


@dataclass
class Stage:
    """Images are made and pushed when they are first asked for."""

    ours: Rival
    theirs: Rival
    host: str
    folder: Path
    quick: bool

    @property
    def rivals(self) -> tuple[Rival, Rival]:
        return self.ours, self.theirs

    @cached_property
    def small(self) -> str:
        """Busybox."""
        return images.push_small(self.host, self.folder)

    @cached_property
    def layered(self) -> str:
        """Thirty layers, some 25 MB."""
        return images.push_large(
            self.host, self.folder, "layered", layers=30, files=100, file_size=21_500
        )

    @cached_property
    def large(self) -> str:
        """A gigabyte and 130,000 files, or a tenth of that."""
        files = 1300 if self.quick else 13_000
        return images.push_large(
            self.host, self.folder, "large", layers=10, files=files, file_size=21_500
        )

    def with_small(self) -> str:
        """The small image, unpacked on both."""
        for rival in self.rivals:
            rival.run_ctr("images", "pull", "--plain-http", self.small)
        return self.small

    @contextmanager
    def apis(self) -> Iterator[tuple[Api, Api]]:
        """Containers of the small image on both."""
        image = self.with_small()
        ours, theirs = (Api(rival, image) for rival in self.rivals)
        try:
            yield ours, theirs
        finally:
            ours.close()
            theirs.close()

    def compare(
        self,
        what: str,
        ours: Callable[[], object],
        theirs: Callable[[], object],
        *,
        rounds: int,
        budget: Budget | None = None,
        per: int = 1,
        between: Callable[[], object] = lambda: None,
    ) -> list[Result]:
        """Median times in turn, and the processor time that each daemon and its children took.

        `per` is how many times an action does the thing whose time is wanted; `between` is untimed.
        """
        used: tuple[list[float], list[float]] = ([], [])

        def measured(rival: Rival, action: Callable[[], object], cpu: list[float]) -> float:
            before = rival.meter.cpu()
            passed = seconds(action)
            cpu.append(rival.meter.cpu() - before)
            return passed / per

        times = medians(
            lambda: measured(self.ours, ours, used[0]),
            lambda: measured(self.theirs, theirs, used[1]),
            rounds,
            between=between,
        )
        cpu = [sum(each[1:]) / rounds / per for each in used]  # the first was the warm-up
        return [
            Result.of(what, (1000 * each for each in times), "ms", budget),
            Result.of(f"{what}: CPU of daemon, shim, runc", (1000 * each for each in cpu), "ms"),
        ]


def name() -> str:
    """For a container, never the same."""
    return f"job-{next(_names)}"
