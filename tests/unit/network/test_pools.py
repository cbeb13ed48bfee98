"""Subnets and addresses: what is chosen, what is refused."""

from __future__ import annotations

import pytest

from orlop.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from orlop.network import pools
from orlop.network.model import Subnet


def test_a_subnet_has_its_gateway_first_or_where_it_is_wished() -> None:
    assert pools.subnet("10.1.0.0/24") == Subnet("10.1.0.0/24", "10.1.0.1")
    assert pools.subnet("10.1.0.0/24", "10.1.0.254").gateway == "10.1.0.254"
    assert pools.subnet("fd00:1::/64").gateway == "fd00:1::1"
    assert (pools.subnet("fd00:1::/64").version, pools.subnet("10.1.0.0/24").prefix) == (6, 24)


@pytest.mark.parametrize(
    ("text", "gateway"),
    [
        ("10.1.0.1/24", ""),
        ("10.1.0.0/31", ""),
        ("fd00::/127", ""),
        ("ten", ""),
        ("10.1.0.0/24", "10.1.0.0"),
        ("10.1.0.0/24", "10.1.0.255"),
        ("10.1.0.0/24", "10.2.0.1"),
        ("10.1.0.0/24", "fd00::1"),
        ("10.1.0.0/24", "gate"),
        ("fd00:1::%x/64", ""),
        ("fd00:1::/64", "fd00:1::1%x"),
    ],
)
def test_what_is_no_subnet_is_refused(text: str, gateway: str) -> None:
    with pytest.raises(InvalidArgument):
        pools.subnet(text, gateway)


def test_a_free_subnet_is_none_that_anybody_has_use_for() -> None:
    taken = ["10.88.0.0/20", "10.88.16.0/28", "0.0.0.0/0", "fd00::/8"]
    assert pools.free_subnet("10.88.0.0/13", 20, taken).subnet == "10.88.32.0/20"
    assert pools.overlapping(pools.subnet("10.88.0.0/24"), taken) == "10.88.0.0/20"
    assert pools.overlapping(pools.subnet("10.99.0.0/24"), taken) == ""
    with pytest.raises(ResourceExhausted, match=r'address pool "10.0.0.0/23" has no free /24 left'):
        pools.free_subnet("10.0.0.0/23", 24, ["10.0.0.0/8"])


def test_what_leads_everywhere_is_no_use_and_what_is_to_be_avoided_is_taken_last() -> None:
    halves = ["0.0.0.0/1", "128.0.0.0/1"]  # as OpenVPN leads all into its tunnel
    assert pools.free_subnet("10.88.0.0/13", 20, halves).subnet == "10.88.0.0/20"
    assert pools.overlapping(pools.subnet("10.99.0.0/24"), halves) == ""
    pool = ("10.0.0.0/23", 24)
    assert pools.free_subnet(*pool, [], ["10.0.0.0/24"]).subnet == "10.0.1.0/24"
    assert pools.free_subnet(*pool, ["10.0.0.0/24"], ["10.0.0.0/8"]).subnet == "10.0.1.0/24"


def test_addresses_are_given_out_in_turn_until_none_is_left() -> None:
    subnet = pools.subnet("10.1.0.0/29")
    taken: list[str] = []
    for _ in range(5):
        taken.append(pools.choose(subnet, taken, taken[-1] if taken else ""))
    assert taken == [f"10.1.0.{n}" for n in (2, 3, 4, 5, 6)]
    with pytest.raises(ResourceExhausted, match="none of its 5 addresses left"):
        pools.choose(subnet, taken, taken[-1])
    taken.remove("10.1.0.3")
    assert pools.choose(subnet, taken, "10.1.0.6") == "10.1.0.3"
    # One that was given back rests until the others have been used.
    assert pools.choose(subnet, ["10.1.0.2"], "10.1.0.3") == "10.1.0.4"


def test_a_gateway_in_the_middle_is_nobodys_else() -> None:
    subnet = pools.subnet("10.1.0.0/29", "10.1.0.3")
    taken: list[str] = []
    while len(taken) < 5:
        taken.append(pools.choose(subnet, taken, taken[-1] if taken else ""))
    assert sorted(taken) == [f"10.1.0.{n}" for n in (1, 2, 4, 5, 6)]


def test_an_address_of_ones_own_choice() -> None:
    subnet = pools.subnet("10.1.0.0/24")
    assert pools.choose(subnet, [], "", "10.1.0.77") == "10.1.0.77"
    for text in ("10.1.0.77", "10.1.0.1"):
        with pytest.raises(FailedPrecondition, match="is taken"):
            pools.choose(subnet, ["10.1.0.77"], "", text)
    for text in ("10.2.0.1", "10.1.0.0", "10.1.0.255", "x"):
        with pytest.raises(InvalidArgument):
            pools.choose(subnet, [], "", text)
    wide = pools.subnet("fd00:1::/64")
    assert pools.choose(wide, [], "") == "fd00:1::2"
    assert pools.choose(wide, ["fd00:1::2"], "fd00:1::2") == "fd00:1::3"
    with pytest.raises(FailedPrecondition, match="is taken"):
        pools.choose(wide, ["fd00:1::2"], "", "fd00:1:0::2")
    with pytest.raises(InvalidArgument, match="has a zone"):
        pools.choose(wide, ["fd00:1::2"], "", "fd00:1::2%1")


def test_a_range_is_where_addresses_are_chosen_and_what_is_reserved_is_not() -> None:
    lan = pools.subnet("192.168.1.0/24", "192.168.1.65", "192.168.1.64/29", {"tv": "192.168.1.66"})
    taken: list[str] = ["192.168.1.9"]
    for _ in range(6):
        taken.append(pools.choose(lan, taken, taken[-1] if len(taken) > 1 else ""))
    assert [each.rpartition(".")[2] for each in taken[1:]] == ["64", "67", "68", "69", "70", "71"]
    with pytest.raises(ResourceExhausted, match=r'range "192.168.1.64/29" .* none of its 7 '):
        pools.choose(lan, taken, taken[-1])
    assert pools.choose(lan, taken, taken[-1], "192.168.1.200") == "192.168.1.200"
    with pytest.raises(FailedPrecondition, match="is taken"):
        pools.choose(lan, taken, "", "192.168.1.66")
    edges = pools.subnet("192.168.1.0/24", "", "192.168.1.0/30")  # the network, and the gateway
    assert pools.choose(edges, [], "") == "192.168.1.2"
    wide = pools.subnet("fd00:1::/64", "", "fd00:1::ff00/120", {"a": "fd00:1:0:0::ff00"})
    assert pools.choose(wide, [], "") == "fd00:1::ff01"


@pytest.mark.parametrize(
    ("ip_range", "reserved"),
    [
        ("192.168.2.0/28", {}),
        ("192.168.0.0/16", {}),
        ("fd00::/120", {}),
        ("192.168.1.1/28", {}),
        ("x", {}),
        ("", {"a": "192.168.2.1"}),
        ("", {"a": "192.168.1.0"}),
        ("", {"a": "192.168.1.1"}),
        ("", {"a": "x"}),
    ],
)
def test_what_is_not_in_the_subnet_is_refused(ip_range: str, reserved: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        pools.subnet("192.168.1.0/24", "", ip_range, reserved)
