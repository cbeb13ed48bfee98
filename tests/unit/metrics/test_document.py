from __future__ import annotations

import runpy
from pathlib import Path

_SCRIPT = Path(__file__).parents[3] / "scripts" / "document_metrics.py"


def test_the_page_of_metrics_is_not_stale() -> None:
    made = runpy.run_path(str(_SCRIPT))
    assert made["PAGE"].read_text() == made["page"](), "run scripts/document_metrics.py"
