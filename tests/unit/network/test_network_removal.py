"""What a ruleset has while a network is being removed, with a kernel that does as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.errors import FailedPrecondition
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.network.networks import Networks, Wanted
from orlop.network.store import NetworkStore, Pools

NS = "default"


class Firewall:
    def __init__(self) -> None:
        self.names: list[str] = []

    def make(self, ruleset: Any) -> None:
        self.names = sorted(each.name for each in ruleset.networks)

    def remove(self) -> None:
        self.names = []


@pytest.fixture
def firewall() -> Firewall:
    return Firewall()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "metadata.db")) as made:
        yield made


@pytest.fixture
def networks(database: Database, firewall: Firewall) -> Networks:
    store = NetworkStore(database, "orlop0", Pools())
    kernel = SimpleNamespace(apply=lambda *_: None, links=list, routes=list)
    names = SimpleNamespace(moved=None, ports=list, leave=lambda _: None)
    forwarding = SimpleNamespace(closed={})
    made: Any = Networks(store, kernel, Exchange(), names, firewall, forwarding, "owner")  # type: ignore[arg-type]
    for name in ("stays", "goes"):
        made.create(NS, Wanted(name))
    made.refresh()
    assert firewall.names == ["goes", "stays"]
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize("refused", [False, True])
def test_whoever_makes_the_rules_meanwhile(
    networks: Networks, firewall: Firewall, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """They are those of what stays, also if that is another network than it seemed."""
    delete = networks.store.delete

    def late(*wanted: Any) -> None:
        networks.refresh()  # a container has come to another network
        assert firewall.names == ["stays"]
        if refused:
            raise FailedPrecondition("one has come to this one, too")
        delete(*wanted)

    monkeypatch.setattr(networks.store, "delete", late)
    if refused:
        with pytest.raises(FailedPrecondition):
            networks.remove(NS, "goes")
    else:
        networks.remove(NS, "goes")
    assert firewall.names == (["goes", "stays"] if refused else ["stays"])
    networks.refresh()
    assert firewall.names == (["goes", "stays"] if refused else ["stays"])


def test_a_namespace_that_is_there_again_keeps_its_networks(
    networks: Networks, database: Database
) -> None:
    """It is heard late that it had gone, or not at all."""
    networks.leave_namespace(NS)
    networks.leave_gone()
    assert len(networks.store.all()) == 2
    with database.write() as tx:
        tx.execute("DELETE FROM namespaces")
    networks.leave_gone()
    assert not networks.store.all()
