from __future__ import annotations

import pytest

from orlop.transfer.progress import DOWNLOADING, Progress
from orlop.transfer.underway import Underway


def test_a_pull_is_seen_while_it_goes_on() -> None:
    underway = Underway()
    heard: list[Progress] = []
    assert underway.all() == []
    with underway.following("ns", "app:1", heard.append) as told:
        told(Progress("Pulling from app:1"))
        told(Progress(DOWNLOADING, "layer-x", 1, 9, "sha256:x"))
        told(last := Progress(DOWNLOADING, "layer-x", 5, 9, "sha256:x"))
        with underway.following("ns", "app:1", heard.append):
            one, two = underway.all()
        assert (one.namespace, one.name, one.state, one.parts) == (
            "ns", "app:1", "Pulling from app:1", [last],
        )  # fmt: skip
        assert two.parts == []
        assert two.began >= one.began
    assert underway.all() == []
    assert len(heard) == 3


def test_one_that_fails_is_not_seen_any_more() -> None:
    underway = Underway()
    with pytest.raises(ValueError, match="no"), underway.following("ns", "a", lambda _: None):
        raise ValueError("no")
    assert underway.all() == []
