from __future__ import annotations

import subprocess
import sys

import pytest

from orlop.daemon import metrics
from orlop.daemon.config import ConfigError, Metrics
from orlop.daemon.config_file import parse
from orlop.metrics.endpoint import wants


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Metrics("9090"), "metrics.address"),
        (Metrics("example.org:9090"), "IP address"),
        (Metrics("0.0.0.0:9090"), "open to the network"),
        (Metrics("0.0.0.0:9090", token="/t"), "in the clear"),
        (Metrics("0.0.0.0:9090", cert="/c", key="/k"), "open to the network"),
        (Metrics("127.0.0.1:9090", cert="/c"), "go together"),
        (Metrics("127.0.0.1:9090", client_ca="/c"), "metrics.client_ca"),
        (Metrics("/run/m.sock", cert="/c", key="/k"), "Unix socket"),
    ],
)
def test_what_makes_no_sense_or_is_not_safe(settings: Metrics, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        metrics.check(settings)


@pytest.mark.parametrize(
    "settings",
    [
        Metrics(),
        Metrics("localhost:9090"),
        Metrics("[::1]:9090", token="/t"),
        Metrics("/run/m.sock", token="/t"),
        Metrics("0.0.0.0:9090", public=True),
        Metrics("0.0.0.0:9090", cert="/c", key="/k", client_ca="/ca"),
        Metrics("10.0.0.1:9090", cert="/c", key="/k", token="/t"),
    ],
)
def test_what_is_fine(settings: Metrics) -> None:
    metrics.check(settings)


def test_lists_of_labels() -> None:
    config = parse(b'[metrics]\nlabels = ["image", "a.b"]\n', "config.toml")
    assert config.metrics.labels == ("image", "a.b")
    with pytest.raises(ConfigError, match="a list of strings"):
        parse(b"[metrics]\nlabels = [1]\n", "config.toml")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzipped", False),
        (";;,;q=,gzip", True),
    ],
)
def test_what_a_scraper_wants(header: str, wanted: bool) -> None:
    assert wants(header, "gzip") is wanted


def test_who_serves_no_metrics_loads_nothing_of_them() -> None:
    code = "import sys, orlop.daemon.main, orlop.daemon.assembly; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "orlop.daemon.assembly" in loaded
    assert not [name for name in loaded if name.startswith(("prometheus_client", "orlop.metrics"))]
