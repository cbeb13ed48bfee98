"""Every operation of the library is one of the service, field by field."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from orlop.errors import InvalidArgument
from orlop.network import converting
from orlop.network.operations import AddLink, AddRule, MoveLink, Rule, SetLink
from orlop.wire.services import links_pb2 as wire


def test_the_service_knows_every_operation() -> None:
    known = wire.Operation.DESCRIPTOR.oneofs_by_name["operation"].fields
    assert {each.name for each in known} == set(converting.OPERATIONS)


@pytest.mark.parametrize("name", converting.OPERATIONS)
def test_an_operation_has_the_same_fields_on_both_sides(name: str) -> None:
    message = wire.Operation.DESCRIPTOR.fields_by_name[name].message_type
    assert message is not None
    fields = {each.name.replace("place", "ns") for each in message.fields}
    assert fields == set(converting.OPERATIONS[name].__struct_fields__) - {"ns"}


def _resolve(place: wire.Place) -> str:
    return f"/ns/{place.netns}"


def test_what_is_not_given_stays() -> None:
    made = converting.operation("/ns/a", wire.SetLink(name="x", up=False, master=""), _resolve)
    assert made == SetLink(ns="/ns/a", name="x", up=False, master="")


def test_places_become_paths() -> None:
    to = wire.MoveLink(name="x", to=wire.Place(netns="b"))
    assert converting.operation("", to, _resolve) == MoveLink(name="x", to="/ns/b")
    link = wire.AddLink(name="x", kind="veth", peer="y")
    here = converting.operation("/ns/a", link, _resolve)
    assert here == AddLink(ns="/ns/a", name="x", kind="veth", peer="y", peer_ns="/ns/a")
    link.peer_place.netns = "b"
    there = converting.operation("/ns/a", link, _resolve)
    assert isinstance(there, AddLink) and there.peer_ns == "/ns/b"


def test_a_rule_is_of_ipv4_unless_it_says_so() -> None:
    made = converting.operation("", wire.AddRule(rule=wire.Rule(priority=7, table=8)), _resolve)
    assert made == AddRule(rule=Rule(priority=7, table=8, family=4))


@pytest.mark.parametrize(
    ("half", "field"),
    [
        (wire.AddRoute(exist_ok=True), "route"),
        (wire.DeleteRoute(), "route"),
        (wire.AddRule(), "rule"),
        (wire.MoveLink(name="x"), "to"),
    ],
)
def test_half_an_operation_is_refused(half: Message, field: str) -> None:
    with pytest.raises(InvalidArgument, match=f'{half.DESCRIPTOR.name} without "{field}"'):
        converting.operation("", half, _resolve)
