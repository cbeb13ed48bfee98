"""What an adoption takes is there as a whole, or not at all."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from orlop.events import Exchange
from orlop.leases import LeaseStore, Resource
from orlop.metadata import Database
from orlop.namespaces.store import NamespaceStore
from orlop.upkeep.adopting import Adopted, Adopter, _Adoption

_HELD = [f"sha256:{digit * 64}" for digit in "ab"]


def test_a_lease_that_was_cut_off_comes_whole_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = {"id": "keep", "labels": {}, "resources": [["content", each] for each in _HELD]}
    told: list[Adopted] = []

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with closing(Database(tmp_path / "metadata.db")) as database:
        leases, none = LeaseStore(database), cast(Any, None)
        adopter = Adopter(none, none, none, leases, NamespaceStore(database, Exchange(), none))
        first, second = _Adoption(adopter, told.append), _Adoption(adopter, told.append)
        first.hear({"namespace": "ns", "labels": {}})
        with monkeypatch.context() as patch:
            patch.setattr("orlop.leases.store.attach_to_lease", killed)
            with pytest.raises(KeyboardInterrupt):
                first.hear({"lease": lease})
        second.hear({"namespace": "ns", "labels": {}})
        second.hear({"lease": lease})
        held = leases.resources("ns", "keep")
        other = Resource("content", f"sha256:{'c' * 64}")
        for _ in range(2):  # another root has a lease of that name
            second.hear({"lease": lease | {"resources": [["content", other.id]]}})
        assert leases.resources("ns", "keep") == (*held, other)
    assert held == tuple(Resource("content", each) for each in _HELD)
    assert told == [Adopted("lease", "ns", "keep")] * 2
