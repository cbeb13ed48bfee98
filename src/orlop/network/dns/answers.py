"""Queries and what is said to them: DNS as of RFC 1035, 2181 and 6891, as far as this host knows.

What comes in is anybody's: it is read here, in one pass over not many bytes and without following
pointers, and only who is known has more done for him than that.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from dnslib import (
    AAAA,
    CLASS,
    EDNS0,
    PTR,
    QTYPE,
    RCODE,
    RR,
    A,
    DNSHeader,
    DNSLabel,
    DNSQuestion,
    DNSRecord,
)

from orlop.network.dns.messages import Entry
from orlop.network.dns.table import Table

HEADER = 12
MOST = 4096
"""Bytes of a query; what is asked takes 271 at most, and a signature a few hundred."""
PLAIN_SIZE = 512
"""Bytes of an answer by UDP to who does not say how much he takes (RFC 1035, 4.2.1)."""
_OUR_SIZE = 1232
_TTL = 5  # seconds: containers come and go
_RESPONSE, _OPCODES = 0x80, 0x78
_ANY = 255
_TRANSFERS = (251, 252)  # IXFR, AXFR
_REVERSE = ((".in-addr.arpa", 4), (".ip6.arpa", 32))
_MOST_NAME = 255  # bytes (RFC 1035, 2.3.4)
_MOST_ADDITIONAL = b"\0\2"  # records: of EDNS, and a signature
_POINTER = 0xC0
_RECORD = 10  # bytes of a record between its name and its data


class _Query(NamedTuple):
    """What is asked, and how many bytes may be answered by UDP; 0 as of before EDNS."""

    number: int
    recursion: int
    question: DNSQuestion
    size: int


def respond(
    table: Table, network: str, source: str, data: bytes, *, stream: bool
) -> bytes | Entry | None:
    """What to send to `source` in a network, who has sent `data`; or who it is, for the upstreams
    to answer.

    None is for what deserves no answer. Who has no place in the network is refused.
    """
    if len(data) < HEADER or data[2] & _RESPONSE:
        return None
    asker = table.asker(network, source)
    if asker is None:
        return failure(data, RCODE.REFUSED)
    if data[2] & _OPCODES:
        return failure(data, RCODE.NOTIMP)
    query = _parsed(data)
    if query is None:
        return failure(data, RCODE.FORMERR)
    if query.question.qclass != CLASS.IN or query.question.qtype in _TRANSFERS:
        return failure(data, RCODE.REFUSED)
    found = _local(table, asker, query.question)
    if found is None:
        if not all(each.internal for each in asker.places):
            return asker
        found = (RCODE.NXDOMAIN, [])
    return _packed(query, *found, stream=stream)


def _parsed(data: bytes) -> _Query | None:
    asked = question(data) if len(data) <= MOST else b""
    if not asked or data[6:10] != bytes(4) or data[10:12] > _MOST_ADDITIONAL:
        return None
    size, at = 0, HEADER + len(asked)
    for _ in range(int.from_bytes(data[10:12])):
        begin = _after_name(data, at)
        end = begin + _RECORD + int.from_bytes(data[begin + 8 : begin + _RECORD])
        if end > len(data):
            return None
        if int.from_bytes(data[begin : begin + 2]) == QTYPE.OPT:
            size = max(PLAIN_SIZE, min(int.from_bytes(data[begin + 2 : begin + 4]), _OUR_SIZE))
        at = end
    kind, family = int.from_bytes(asked[-4:-2]), int.from_bytes(asked[-2:])
    made = DNSQuestion(DNSLabel(_labels(asked)), kind, family)
    return _Query(int.from_bytes(data[:2]), data[2] & 0x01, made, size)


def _after_name(data: bytes, at: int) -> int:
    """Where the name of a record ends that begins at `at`; past the end if it does not."""
    while at < len(data) and 0 < data[at] < _POINTER:
        at += data[at] + 1
    return at + (2 if at < len(data) and data[at] else 1)


def _labels(name: bytes) -> list[bytes]:
    """The parts of a name that has no pointers."""
    found, at = [], 0
    while name[at]:
        found.append(name[at + 1 : at + 1 + name[at]])
        at += name[at] + 1
    return found


def _local(table: Table, asker: Entry, question: DNSQuestion) -> tuple[int, list[RR]] | None:
    """What there is to say of a name that is ours; None if it is not."""
    labels = question.qname.label
    name = b".".join(labels).decode(errors="replace")
    address = _reversed(name.lower())
    if address:
        called = table.name(asker, address)
        if called is None:
            return None
        if not called:
            return RCODE.NXDOMAIN, []
        records = [RR(question.qname, QTYPE.PTR, rdata=PTR(_label(called)), ttl=_TTL)]
        return RCODE.NOERROR, records if question.qtype in (QTYPE.PTR, _ANY) else []
    found = table.addresses(asker, name)
    if not found:
        return None
    records = []
    for text in found:
        kind, rdata = (QTYPE.AAAA, AAAA) if ":" in text else (QTYPE.A, A)
        if question.qtype in (kind, _ANY):
            records.append(RR(question.qname, kind, rdata=rdata(text), ttl=_TTL))
    return RCODE.NOERROR, records


def _label(name: str) -> DNSLabel:
    """From its parts, as a text would go through the rules of international names."""
    return DNSLabel([part.encode() for part in name.split(".")])


def _reversed(name: str) -> str:
    """The address that a name of the reverse tree stands for, "" for any other name."""
    for suffix, count in _REVERSE:
        if name.endswith(suffix):
            parts = name.removesuffix(suffix).split(".")[::-1]
            if len(parts) != count:
                return ""
            text = ".".join(parts) if count == 4 else _grouped("".join(parts))
            try:
                return str(ipaddress.ip_address(text))
            except ValueError:
                return ""
    return ""


def _grouped(digits: str) -> str:
    return ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def _packed(query: _Query, code: int, answers: list[RR], *, stream: bool) -> bytes:
    header = DNSHeader(id=query.number, qr=1, aa=1, rd=query.recursion, ra=1, rcode=code)
    reply = DNSRecord(header, questions=[query.question], rr=answers)
    if query.size:
        reply.add_ar(EDNS0(udp_len=_OUR_SIZE))
    packed = bytes(reply.pack())
    if len(packed) > (query.size or PLAIN_SIZE) and not stream:
        reply.rr = []
        reply.header.tc = 1
        reply.header.a = 0
        packed = bytes(reply.pack())
    return packed


def failure(query: bytes, code: int) -> bytes:
    """That a query has failed, with its question as it came if that can be read."""
    asked = question(query)
    recursion = query[2] & 0x01
    flags = bytes((_RESPONSE | query[2] & _OPCODES | recursion, 0x80 | code))
    counts = b"\0\x01" if asked else b"\0\0"
    return query[:2] + flags + counts + bytes(6) + asked


def question(data: bytes) -> bytes:
    """The one question of a message, as it stands there; b"" if there is none, or several."""
    if len(data) < HEADER or data[4:6] != b"\0\x01":
        return b""
    at = HEADER
    while at < len(data) and data[at]:
        if data[at] > 63:  # a pointer: it could only be to itself
            return b""
        at += data[at] + 1
    end = at + 5
    return data[HEADER:end] if end <= len(data) and at - HEADER < _MOST_NAME else b""
