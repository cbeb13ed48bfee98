"""`python hostile_dns.py ADDRESS`: a name server that does to a query what its first label says.

By TCP it hangs up on most of that; everything else is answered with 203.0.113.66.
"""

from __future__ import annotations

import socket
import sys
import threading

from dnslib import QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord


def answer(data: bytes) -> list[bytes]:
    query = DNSRecord.parse(data)
    name = str(query.q.qname)
    good = query.reply()
    good.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("203.0.113.66"), ttl=1))
    packed = bytes(good.pack())
    other = DNSRecord(DNSHeader(id=query.header.id, qr=1), q=DNSQuestion("other.test"))
    other.add_answer(RR("other.test", QTYPE.A, rdata=A("203.0.113.99"), ttl=1))
    wrong = bytes(((packed[0] + 1) % 256,)) + packed[1:]
    match name.split(".", maxsplit=1)[0]:
        case "silent":
            return []
        case "garbage":
            return [b"", b"\0", b"\xff" * 600, data[:2] + b"\x80", data, packed]
        case "wrongid":
            return [wrong.replace(b"\xcb\x00\x71\x42", b"\xcb\x00\x71\x63"), packed]
        case "wrongname":
            return [bytes(other.pack()), packed]
        case "truncated":
            good.header.tc, good.rr = 1, []
            return [bytes(good.pack())]
        case "servfail":
            good.header.rcode, good.rr = RCODE.SERVFAIL, []
            return [bytes(good.pack())]
        case "bare":  # an error without the question
            return [data[:2] + b"\x81\x82" + bytes(8)]
        case _:
            return [packed]


def by_tcp(listening: socket.socket) -> None:
    while True:
        stream, _ = listening.accept()
        with stream:
            size = int.from_bytes(stream.recv(2))
            found = answer(stream.recv(size))
            if len(found) == 1:
                stream.sendall(len(found[0]).to_bytes(2) + found[0])


def main() -> None:
    where = (sys.argv[1], 53)
    listening = socket.create_server(where)
    threading.Thread(target=by_tcp, args=(listening,), daemon=True).start()
    with socket.socket(type=socket.SOCK_DGRAM) as asked:
        asked.bind(where)
        while True:
            data, source = asked.recvfrom(4096)
            for each in answer(data):
                asked.sendto(each, source)


if __name__ == "__main__":
    main()
