"""The DNS process's parts without a network: names, and the protocol, also from the hostile."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from orlop.network.dns.answers import MOST, PLAIN_SIZE, respond
from orlop.network.dns.messages import Entry, Place
from orlop.network.dns.server import Control, Reports, Resolver, Shares
from orlop.network.dns.table import Table
from orlop.network.dns.upstream import HostServers
from orlop.shim.loop import Loop

BACK = ("n1", "back", False, ("10.5.0.0/24", "fd05::/64"))
VAULT = ("n2", "vault", True, ("10.6.0.0/24",))


def place(
    network: tuple[str, str, bool, tuple[str, ...]], *addresses: str, alias: str = ""
) -> Place:
    aliases = (alias,) if alias else ()
    return Place(*network[:3], addresses, aliases, network[3])


def entry(name: str, *places: Place) -> Entry:
    return Entry("test", name, (name, f"{name}-host"), places)


@pytest.fixture
def table() -> Table:
    made = Table()
    made.put(entry("web", place(BACK, "10.5.0.2", "fd05::2", alias="www")))
    made.put(entry("0123456789abcdef", place(BACK, "10.5.0.3", alias="WWW")))
    made.put(entry("db", place(BACK, "10.5.0.4"), place(VAULT, "10.6.0.4")))
    made.put(entry("safe", place(VAULT, "10.6.0.5")))
    return made


def ask(table: Table, source: str, name: str, kind: str = "A", **options: bool) -> DNSRecord:
    found = said(table, source, DNSRecord.question(name, kind).pack(), **options)
    assert isinstance(found, bytes)
    return DNSRecord.parse(found)


def said(table: Table, source: str, data: bytes, *, stream: bool = False) -> bytes | Entry | None:
    network = "n2" if source.startswith("10.6.") else "n1"
    return respond(table, network, source, bytes(data), stream=stream)


def addresses(reply: DNSRecord) -> list[str]:
    assert reply.header.rcode == RCODE.NOERROR
    return [str(each.rdata) for each in reply.rr]


@pytest.mark.parametrize(
    "name", ["web", "WEB", "web.", "web-host", "web.back", "Web.BACK.", "web-host.back"]
)
def test_names(table: Table, name: str) -> None:
    assert addresses(ask(table, "10.5.0.4", name)) == ["10.5.0.2"]
    assert addresses(ask(table, "fd05::2", name, "AAAA")) == ["fd05::2"]
    assert set(addresses(ask(table, "10.5.0.4", name, "ANY"))) == {"10.5.0.2", "fd05::2"}


def test_an_id_in_full_and_in_short(table: Table) -> None:
    for name in ("0123456789abcdef", "0123456789ab"):
        assert addresses(ask(table, "10.5.0.2", name)) == ["10.5.0.3"]


def test_an_alias_of_several_takes_turns(table: Table) -> None:
    first = [addresses(ask(table, "10.5.0.4", "www"))[0] for _ in range(4)]
    assert first == [first[0], first[1]] * 2 and set(first) == {"10.5.0.2", "10.5.0.3"}


def test_what_is_asked_again_is_answered_as_the_table_is_then(table: Table) -> None:
    resolver = Resolver(Loop(Reports()))
    resolver.table = table

    def first(name: str, source: str = "10.5.0.4") -> str:
        query = DNSRecord.question(name)
        found = resolver._respond("n1", source, bytes(query.pack()), stream=False)
        assert isinstance(found, bytes)
        reply = DNSRecord.parse(found)
        assert reply.header.id == query.header.id
        return str(reply.rr[0].rdata) if reply.rr else RCODE.get(reply.header.rcode)

    assert [first("web") for _ in range(3)] == ["10.5.0.2"] * 3
    assert first("web", "10.5.0.99") == "REFUSED"
    assert len({first("www") for _ in range(4)}) == 2  # in turns
    table.put(entry("web", place(BACK, "10.5.0.9")))
    assert first("web") == "10.5.0.9"
    table.drop(("test", "db"))
    assert first("web") == "REFUSED"
    for number in range(3000):
        first("web", f"10.7.{number // 250}.{number % 250}")
    assert len(resolver._said) <= 1024


def test_no_such_records_is_not_no_such_name(table: Table) -> None:
    for name, kind in (
        ("db", "AAAA"),
        ("db", "MX"),
        ("db", "HTTPS"),
        ("2.0.5.10.in-addr.arpa", "A"),
    ):
        reply = ask(table, "10.5.0.2", name, kind)
        assert reply.header.rcode == RCODE.NOERROR and not reply.rr and reply.header.aa
    assert isinstance(said(table, "10.5.0.2", DNSRecord.question("nobody").pack()), Entry)
    assert ask(table, "10.6.0.5", "nobody").header.rcode == RCODE.NXDOMAIN  # there is no way out


def test_each_sees_its_own_networks(table: Table) -> None:
    assert addresses(ask(table, "10.6.0.4", "web")) == ["10.5.0.2"]  # by whichever address
    assert addresses(ask(table, "10.6.0.5", "db")) == ["10.6.0.4"]
    assert ask(table, "10.6.0.5", "web").header.rcode == RCODE.NXDOMAIN
    assert isinstance(said(table, "10.5.0.2", DNSRecord.question("safe").pack()), Entry)
    assert ask(table, "10.5.0.99", "web").header.rcode == RCODE.REFUSED
    elsewhere = respond(
        table, "n2", "10.5.0.2", bytes(DNSRecord.question("web").pack()), stream=True
    )
    assert isinstance(elsewhere, bytes)  # at the gateway of a network that it has no place in
    assert DNSRecord.parse(elsewhere).header.rcode == RCODE.REFUSED
    table.drop(("test", "web"))
    assert ask(table, "10.5.0.2", "db").header.rcode == RCODE.REFUSED
    assert isinstance(said(table, "10.5.0.3", DNSRecord.question("web").pack()), Entry)


def test_the_way_back_from_addresses(table: Table) -> None:
    def back(source: str, address: str) -> DNSRecord:
        return ask(table, source, DNSRecord.question(address).q.qname, "PTR")

    assert addresses(back("10.5.0.4", "2.0.5.10.in-addr.arpa")) == ["web.back."]
    six = f"2.{'0.' * 27}5.0.d.f.ip6.arpa"
    assert addresses(back("10.5.0.4", six)) == ["web.back."]
    assert back("10.5.0.2", "77.0.5.10.in-addr.arpa").header.rcode == RCODE.NXDOMAIN
    for other in ("5.0.6.10.in-addr.arpa", "8.8.8.8.in-addr.arpa", "300.1.1.1.in-addr.arpa"):
        assert isinstance(said(table, "10.5.0.2", DNSRecord.question(other, "PTR").pack()), Entry)


def test_a_change_takes_the_place_of_what_was(table: Table) -> None:
    table.put(Entry("test", "web", ("site",), (place(BACK, "10.5.0.9"),)))
    assert addresses(ask(table, "10.5.0.9", "site")) == ["10.5.0.9"]
    assert addresses(ask(table, "10.5.0.9", "web")) == ["10.5.0.9"]  # its id
    assert isinstance(said(table, "10.5.0.9", DNSRecord.question("web-host").pack()), Entry)
    assert ask(table, "10.5.0.2", "db").header.rcode == RCODE.REFUSED


def test_what_does_not_fit_is_cut_and_whole_by_tcp(table: Table) -> None:
    for number in range(100, 180):
        table.put(entry(f"box{number}", place(BACK, f"10.5.0.{number}", alias="all")))
    query = DNSRecord.question("all").pack()
    short = said(table, "10.5.0.2", query)
    assert isinstance(short, bytes) and len(short) <= PLAIN_SIZE
    assert DNSRecord.parse(short).header.tc and not DNSRecord.parse(short).rr
    assert len(addresses(ask(table, "10.5.0.2", "all", stream=True))) == 80


def test_what_is_not_done(table: Table) -> None:
    def code(data: bytes) -> int:
        found = said(table, "10.5.0.2", data)
        assert isinstance(found, bytes)
        return int(DNSRecord.parse(found).header.rcode)

    two = DNSRecord(DNSHeader(), questions=[DNSQuestion("web"), DNSQuestion("db")]).pack()
    assert code(two) == RCODE.FORMERR
    assert code(DNSRecord(DNSHeader(opcode=5), q=DNSQuestion("web")).pack()) == RCODE.NOTIMP
    assert code(DNSRecord.question("web", "AXFR").pack()) == RCODE.REFUSED
    assert code(DNSRecord(q=DNSQuestion("version.bind", QTYPE.TXT, 3)).pack()) == RCODE.REFUSED
    assert code(bytes(12)) == RCODE.FORMERR
    heads = ("000100000000000a", "0001000100000000", "0001000000010000")
    for counts in map(bytes.fromhex, heads):
        assert code(b"\1\2\1\0" + counts + b"\3web\0\0\1\0\1") == RCODE.FORMERR
    long = b"".join(b"\x3f" + b"a" * 63 for _ in range(4)) + b"\0"
    assert (
        code(b"\1\2\1\0" + bytes.fromhex("0001000000000000") + long + b"\0\1\0\1") == RCODE.FORMERR
    )
    assert said(table, "10.5.0.2", DNSRecord(DNSHeader(qr=1), q=DNSQuestion("web")).pack()) is None
    assert said(table, "10.5.0.2", b"\0" * 11) is None


def test_no_pointers_are_followed(table: Table) -> None:
    head = b"\1\2\1\0" + bytes.fromhex("0001000000000002") + b"\3web\0\0\1\0\1"
    record = bytes.fromhex("00290400000000000000")
    circle = head + b"\xc0\x19\xc0\x17" + bytes(450)
    links = (MOST - len(head) - 24) // 2
    chain = b"".join((0xC000 | 17 + 2 * each).to_bytes(2) for each in range(links))
    rest = b"\xc0\x15" + record[:8] + len(chain).to_bytes(2)
    whole = head + rest + chain + (0xC000 | len(head) + 10 + len(chain)).to_bytes(2) + record
    for packet in (circle, circle + bytes(20000), head + chain, whole + b"\0", whole * 4):
        for source, network in (("10.5.0.2", "n1"), ("10.5.0.99", "n1")):
            spent = []
            for _ in range(3):
                before = time.thread_time()
                found = respond(table, network, source, packet, stream=False)
                spent.append(time.thread_time() - before)
            assert min(spent) < 0.2
            assert isinstance(found, bytes)
            code = DNSRecord.parse(found).header.rcode
            if source == "10.5.0.99":
                assert code == RCODE.REFUSED
            elif len(packet) > MOST or packet == head + chain:
                assert code == RCODE.FORMERR


def test_who_has_much_gets_no_more_and_others_still_some() -> None:
    shares = Shares(256)
    first = sum(shares.take("one") for _ in range(300))
    second = sum(shares.take("two") for _ in range(300))
    assert first > second > 40 and all(shares.take(name) for name in "abcde")
    for _ in range(first):
        shares.give("one")
    assert all(shares.take("one") for _ in range(40))


def test_a_daemon_that_talks_nonsense_is_left(tmp_path: Path) -> None:
    loop = Loop(Reports())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        listening.setblocking(False)
        control = Control(loop, listening, listening.fileno(), Resolver(loop), 60.0)
        loop.spawn(control.serve())
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
            daemon.connect(str(tmp_path / "sock"))
            daemon.send(b'{"type":"Pu')
            loop.run()  # until it is left, as nobody is known
            assert daemon.recv(100) == b""
    loop.close()


def test_what_goes_wrong_often_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reports()
    for number in range(100):
        report(ValueError(f"number {number}"))
    assert capsys.readouterr().err == "ValueError: number 0\n"


@given(st.binary(max_size=80), st.booleans())
def test_garbage_is_survived(data: bytes, begins_well: bool) -> None:
    table = Table()
    table.put(entry("web", place(BACK, "10.5.0.2")))
    head = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01" if begins_well else b""
    found = said(table, "10.5.0.2", head + data)
    if isinstance(found, bytes):
        assert found[:2] == (head + data)[:2] and found[2] & 0x80


@given(st.lists(st.integers(0, 255), min_size=1, max_size=6), st.integers(0, 60))
def test_a_damaged_query_is_survived(values: list[int], at: int) -> None:
    table = Table()
    table.put(entry("web", place(BACK, "10.5.0.2")))
    data = bytearray(DNSRecord.question("web.example.com", "A").pack() + bytes(30))
    data[at : at + len(values)] = bytes(values)
    said(table, "10.5.0.2", bytes(data))


def test_the_host_s_servers_are_read_again_when_they_change(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    servers = HostServers(path, every=0.0)
    assert servers() == ()
    path.write_text("nameserver 127.0.0.53\nnameserver evil.example\nnameserver fe80::1%eth0\n")
    assert servers() == ("127.0.0.53", "fe80::1%eth0")
    path.unlink()
    assert servers() == ("127.0.0.53", "fe80::1%eth0")
    path.write_text("nameserver 10.0.0.1\n")
    assert servers() == ("10.0.0.1",)
