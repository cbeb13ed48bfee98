"""A daemon whose metrics are scraped, and what it says, parsed."""

from __future__ import annotations

import http.client
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests import daemon_fixture
from tests.daemon_fixture import Orlopd
from tests.served_fixture import Answered

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


class Metrics:
    """What a scrape found: samples by name and labels."""

    def __init__(self, text: str, *, openmetrics: bool = False) -> None:
        self.text = text
        self.kinds: dict[str, str] = {}
        self.samples: Samples = {}
        families = parse_openmetrics(text) if openmetrics else parse_text(text)  # type: ignore[no-untyped-call]
        for family in families:
            self.kinds[family.name] = family.type
            for sample in family.samples:
                key = tuple(sorted(sample.labels.items()))
                of_name = self.samples.setdefault(sample.name, {})
                assert key not in of_name, f"{sample} is there twice"
                of_name[key] = sample.value

    def all(self, name: str, /, **labels: str) -> list[float]:
        """The samples of a metric that have these labels, among others."""
        wanted = set(labels.items())
        found = self.samples.get(name, {})
        return [value for key, value in found.items() if wanted <= set(key)]

    def one(self, name: str, /, **labels: str) -> float:
        found = self.all(name, **labels)
        assert len(found) == 1, f"{name}{labels}: {found}"
        return found[0]

    def total(self, name: str, /, **labels: str) -> float:
        return sum(self.all(name, **labels))


def get(
    port: int,
    path: str = "/metrics",
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> Answered:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, headers=dict(headers or {}))
        return Answered(connection.getresponse())


class Scraped:
    """A daemon with metrics on a free port of loopback."""

    def __init__(self, daemon: Orlopd) -> None:
        self.daemon = daemon

    @property
    def address(self) -> str:
        said = self.daemon.log.read_text()
        return str(re.findall(r'serving metrics on \\"([^"\\]+)', said)[-1])

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def get(self, path: str = "/metrics", headers: Mapping[str, str] | None = None) -> Answered:
        return get(self.port, path, headers)

    def scrape(self, *, openmetrics: bool = False) -> Metrics:
        answered = self.get(headers=OPENMETRICS if openmetrics else None)
        assert answered.status == 200, answered.body
        return Metrics(answered.body.decode(), openmetrics=openmetrics)


@contextmanager
def scraped(folder: Path, settings: str = "", more: str = "") -> Iterator[Scraped]:
    """`settings` are those of `[metrics]`, `more` is other sections."""
    daemon = Orlopd()
    config = folder / f"{daemon.namespace}.toml"
    address = "" if "address" in settings else 'address = "127.0.0.1:0"\n'
    config.write_text(f"[metrics]\n{address}{settings}\n{more}")
    daemon.options += ["--config", str(config)]
    with contextmanager(daemon_fixture.serving_with)(daemon):
        yield Scraped(daemon)


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, check=False
    )
