"""A metric and its samples as text, as both of Prometheus's formats write them.

The library makes an object of every sample, which for the tens of thousands of a scrape takes ten
times as long as this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

GAUGE, COUNTER = "gauge", "counter"
_TOTAL = "_total"
_OTHER_UNITS = ("_nanoseconds", "_microseconds")


class Family(NamedTuple):
    """A metric. The name of a counter ends in "_total"; `labels` come after those of containers."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return COUNTER if self.name.endswith(_TOTAL) else GAUGE

    @property
    def in_base_units(self) -> bool:
        """Whether its unit is one that Prometheus wants: some names of containerd have others."""
        return not self.name.endswith(_OTHER_UNITS)

    def head(self, *, openmetrics: bool) -> str:
        """The lines before the samples; OpenMetrics names a counter without its suffix."""
        name = self.name.removesuffix(_TOTAL) if openmetrics else self.name
        text = self.help.replace("\\", "\\\\").replace("\n", "\\n")
        return f"# HELP {name} {text}\n# TYPE {name} {self.kind}\n"


class Sheet:
    """Samples by metric: the formats want those of one metric together."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._lines: dict[str, list[str]] = {each.name: [] for each in families}
        self._rows: dict[tuple[str, ...], list[tuple[str, Sequence[float]]]] = {}

    def add(self, name: str, labels: str, value: float) -> None:
        """`labels` as they are written between braces."""
        self._lines[name].append(f"{name}{{{labels}}} {value}\n")

    def add_row(self, names: tuple[str, ...], labels: str, values: Sequence[float]) -> None:
        """A sample of each of some metrics, all with the same labels."""
        self._rows.setdefault(names, []).append((f"{{{labels}}}", values))

    def texts(self) -> Iterator[tuple[str, str]]:
        """The metrics that have samples, in their order, and these."""
        for names, rows in self._rows.items():
            for column, name in enumerate(names):
                self._lines[name] += [f"{name}{head} {row[column]}\n" for head, row in rows]
        self._rows.clear()
        for name, lines in self._lines.items():
            if lines:
                yield name, "".join(lines)


_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def pairs(labels: Iterable[tuple[str, str]]) -> str:
    """Labels as they are written between braces."""
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels)
