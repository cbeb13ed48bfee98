"""The dashboards and alerts in contrib/ speak of metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[3]
_DOCUMENTED = set(re.findall(r"^\| `(\w+)`", (_ROOT / "docs/metrics.md").read_text(), re.M))
_METRIC = re.compile(
    r"\b(?:container|containerd|orlop|grpc_server|ttrpc_server|process|python)_\w+(?=[{\[])"
)
_RULES = _ROOT / "contrib/prometheus/orlop.rules.yml"
_DASHBOARDS = sorted((_ROOT / "contrib/grafana").glob("*.json"))


def _used(expressions: Iterator[str]) -> set[str]:
    names = {name for each in expressions for name in _METRIC.findall(each)}
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def test_the_alerts_are_valid() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(_RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_speak_of_what_there_is() -> None:
    groups = yaml.safe_load(_RULES.read_text())["groups"]
    used = _used(rule["expr"] for group in groups for rule in group["rules"])
    assert len(used) > 10
    assert used <= _DOCUMENTED


@pytest.mark.parametrize("path", _DASHBOARDS, ids=lambda path: path.stem)
def test_the_dashboards_speak_of_what_there_is(path: Path, tmp_path: Path) -> None:
    board: dict[str, Any] = json.loads(path.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) > 10
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = _used(iter(expressions))
    assert len(used) > 10
    assert used <= _DOCUMENTED
    plain = [re.sub(r"\$\w+(?=\])", "5m", each) for each in expressions]
    rules = [{"record": "x:y", "labels": {"n": str(n)}, "expr": e} for n, e in enumerate(plain)]
    made = tmp_path / "rules.yml"
    made.write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(made)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
