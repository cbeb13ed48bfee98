"""Records of networks: no address is given out twice, whoever asks at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    ResourceExhausted,
)
from orlop.metadata import Database
from orlop.network import pools
from orlop.network.model import Endpoint, Network, Port, Wish
from orlop.network.store import NetworkStore, Pools
from tests import old_database


@pytest.fixture
def store(tmp_path: Path) -> NetworkStore:
    return NetworkStore(Database(tmp_path / "metadata.db"), "orlop0", Pools())


def network(store: NetworkStore, name: str = "one", subnet: str = "", **more: object) -> Network:
    subnets = (pools.subnet(subnet),) if subnet else ()
    wanted = Network(id="", namespace="default", name=name, subnets=subnets, **more)  # type: ignore[arg-type]
    return store.create(wanted, [])


def test_networks_come_and_go(store: NetworkStore) -> None:
    one = network(store, labels={"a": "b", "gone": ""})
    two = store.create(Network(id="", namespace="other", name="one"), [], ipv6=True)
    assert (one.bridge, one.labels, len(one.id)) == ("orlop0", {"a": "b"}, 12)
    assert two.bridge == f"br-{two.id}"
    assert [each.version for each in two.subnets] == [4, 6]
    assert one.subnets[0].subnet != two.subnets[0].subnet
    assert store.get("default", "one") == store.get("default", one.id) == one
    assert store.of_namespace("default", ['labels."a"==b']) == [one]
    assert store.of_namespace("default", ["name==two"]) == []
    with pytest.raises(AlreadyExists, match='network "one"'):
        network(store)
    assert store.delete("default", "one") == one
    for missing in ("one", one.id):
        with pytest.raises(NotFound):
            store.get("default", missing)
    assert network(store).labels == {}


def test_subnets_overlap_nothing(store: NetworkStore) -> None:
    network(store, "one", "10.1.0.0/16")
    with pytest.raises(FailedPrecondition, match=r'subnet "10.1.2.0/24" overlaps "10.1.0.0/16"'):
        network(store, "two", "10.1.2.0/24")
    wanted = Network(
        id="", namespace="default", name="three", subnets=(pools.subnet("192.168.1.0/24"),)
    )
    with pytest.raises(FailedPrecondition, match="overlaps"):
        store.create(wanted, ["192.168.0.0/16"])
    with pytest.raises(InvalidArgument, match='driver "carrier pigeon"'):
        network(store, "four", driver="carrier pigeon")
    with pytest.raises(InvalidArgument, match="must be letters"):
        network(store, "a/b")


def test_a_container_has_its_place_until_it_is_released(store: NetworkStore) -> None:
    one, two = network(store, "one"), network(store, "two", "10.2.0.0/24")
    first = store.reserve(one, "box", Wish(network="one", aliases=("db",)))
    second = store.reserve(two, "box", Wish(network="two", ip="10.2.0.9", mac="02:00:00:00:00:01"))
    assert (first.inside, second.inside) == ("eth0", "eth1")
    assert (second.addresses, second.mac) == (("10.2.0.9",), "02:00:00:00:00:01")
    assert first.aliases == ("db",) and len(first.link) <= 15
    assert store.endpoints("default", "box") == [first, second]
    with pytest.raises(AlreadyExists, match='container "box" in network "one"'):
        store.reserve(one, "box", Wish(network="one"))
    with pytest.raises(FailedPrecondition, match='used by "box"'):
        store.delete("default", "one")
    with pytest.raises(InvalidArgument, match='no subnet for address "fd00::1"'):
        store.reserve(one, "other", Wish(network="one", ip6="fd00::1"))
    assert store.release("default", "box", two.id) == [second]
    assert store.reserve(two, "new", Wish(network="two", ip="10.2.0.9")).position == 0
    assert store.release("default", "box") == [first]
    assert store.release("default", "box") == []
    store.delete("default", "one")


def test_who_had_an_address_before_had_its_hardware_address(store: NetworkStore) -> None:
    """On a bridge, where others remember it; hosts of a network outside go by who they are."""
    one = network(store, "one", "10.1.0.0/24")
    lan = network(store, "lan", "10.2.0.0/24", driver="macvlan", bridge="eth0")
    found = {}
    for name in ("first", "second"):
        for each, ip in ((one, "10.1.0.9"), (lan, "10.2.0.9")):
            found[name, each.name] = store.reserve(each, name, Wish(network=each.name, ip=ip)).mac
        store.release("default", name)
    assert found["first", "one"] == found["second", "one"]
    assert found["first", "lan"] != found["second", "lan"]
    again = store.reserve(lan, "first", Wish(network="lan"))
    assert again.mac == found["first", "lan"]
    other = store.reserve(one, "first", Wish(network="one"))
    assert other.mac != found["first", "one"] and other.mac.startswith("02:")


def test_a_range_and_what_is_reserved_are_kept(store: NetworkStore) -> None:
    lan = pools.subnet("10.1.0.0/24", "", "10.1.0.8/29", {"printer": "10.1.0.8"})
    wanted = Network(id="", namespace="default", name="lan", subnets=(lan,))
    made = store.create(wanted, [])
    assert store.get("default", "lan") == made and made.subnets == (lan,)
    assert store.reserve(made, "box", Wish(network="lan")).addresses == ("10.1.0.9",)


def test_aliases_have_limits(store: NetworkStore) -> None:
    made = network(store)
    for bad in (("a",) * 65, ("ok", "x" * 254)):
        with pytest.raises(InvalidArgument, match="alias"):
            store.reserve(made, "box", Wish(network="one", aliases=bad))
    assert store.reserve(made, "box", Wish(network="one", aliases=("x" * 253,) * 64)).position == 0


def test_ports_are_kept_and_go_with_the_container(store: NetworkStore) -> None:
    ports = [Port(container_port=80, host_port=8080), Port(container_port=53, host_port=53,
             protocol="udp", host_address="127.0.0.1", count=2)]  # fmt: skip
    store.publish("default", "box", [Port(container_port=1, host_port=1)])
    store.publish("default", "box", ports)
    found = store.ports()["default", "box"]
    assert sorted(found, key=lambda each: -each.host_port) == ports
    store.release("default", "box")
    assert store.ports() == {}


def test_ports_go_with_the_last_network_that_publishes(store: NetworkStore) -> None:
    lan = network(store, "lan", "10.1.0.0/24", driver="macvlan", bridge="eth0")
    made = [lan, network(store, "two"), network(store, "shut", internal=True)]
    for each in made:
        store.reserve(each, "box", Wish(network=each.name))
    store.publish("default", "box", [Port(container_port=80, host_port=8080)])
    store.release("default", "box", made[2].id)
    assert store.ports_of("default", "box")
    store.release("default", "box", made[1].id)
    assert not store.ports_of("default", "box")


def test_a_port_leads_to_one_container(store: NetworkStore) -> None:
    """Whatever the protocol, and whatever the sockets say."""
    four = network(store, "four", "10.1.0.0/24")
    subnets = (pools.subnet("fd00:1::/64"),)
    six = store.create(
        Network(id="", namespace="default", name="six", subnets=subnets), [], ipv4=False
    )
    for where, name in ((four, "box"), (four, "other"), (six, "six")):
        store.reserve(where, name, Wish(network=where.name))
    held = Port(container_port=80, host_port=8080, protocol="sctp", count=3)
    store.publish("default", "box", [held])
    store.publish("default", "box", [held])
    for wanted in (
        {"host_port": 8082},
        {"host_port": 8079, "count": 2},
        {"host_port": 8080, "host_address": "127.0.0.1"},
    ):
        text = r'port 808\d/sctp of the host is taken by container "box"'
        with pytest.raises(FailedPrecondition, match=text):
            store.publish("default", "other", [Port(container_port=1, protocol="sctp", **wanted)])
    assert store.ports_of("default", "other") == []
    twice = [Port(container_port=1, host_port=5000, protocol="sctp")] * 2
    with pytest.raises(FailedPrecondition, match='is taken by container "other"'):
        store.publish("default", "other", twice)
    free = [
        Port(container_port=1, host_port=8083, protocol="sctp"),
        Port(container_port=1, host_port=8080),
        Port(container_port=1, host_port=90, protocol="udp", host_address="127.0.0.1"),
        Port(container_port=1, host_port=90, protocol="udp", host_address="127.0.0.2"),
        Port(container_port=1, host_port=8080, protocol="sctp", host_address="fd00::1"),
    ]
    store.publish("default", "other", free)
    store.publish("default", "six", [Port(container_port=1, host_port=8081, protocol="sctp")])


def test_a_thousand_at_once_get_a_thousand_addresses(store: NetworkStore) -> None:
    small = network(store, "one", "10.1.0.0/24")
    got: list[Endpoint] = []
    refused: list[OrlopError] = []

    def come(first: int) -> None:
        for number in range(first, first + 40):
            try:
                got.append(store.reserve(small, f"c{number}", Wish(network="one")))
            except ResourceExhausted as error:
                refused.append(error)

    threads = [threading.Thread(target=come, args=(n * 40,)) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    addresses = {each.addresses[0] for each in got}
    assert len(got) == len(addresses) == 253
    assert len(refused) == 320 - 253
    assert "10.1.0.1" not in addresses


def test_a_database_of_the_version_before_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    with old_database.of_version(path, 2) as before:
        before.execute("INSERT INTO namespaces VALUES ('old')")
    database = Database(path)
    with database.read() as tx:
        assert tx.one("SELECT 1 FROM namespaces WHERE name = 'old'") is not None
    made = network(NetworkStore(database, "orlop0", Pools()))
    assert made.bridge == "orlop0"
    database.close()


def test_a_subnet_of_the_version_before_has_all_of_its_addresses(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    with old_database.of_version(path, 7) as before:
        before.execute("INSERT INTO namespaces VALUES ('default')")
        before.execute(
            "INSERT INTO networks VALUES ('1', 'default', 'one', 'bridge', 'orlop0', 0, 0, 0, '')"
        )
        before.execute(
            "INSERT INTO network_subnets VALUES ('1', 4, '10.1.0.0/24', '10.1.0.1', '10.1.0.7')"
        )
    database = Database(path)
    store = NetworkStore(database, "orlop0", Pools())
    one = store.get("default", "one")
    assert one.subnets == (pools.subnet("10.1.0.0/24"),)
    assert store.reserve(one, "box", Wish(network="one")).addresses == ("10.1.0.8",)
    database.close()
