"""Published ports as they are shown."""

from __future__ import annotations

from orlop.client.ports import Port, ranges


def test_those_in_a_row_are_one() -> None:
    found = [
        *(Port(each, "tcp", "0.0.0.0", each + 1000) for each in (90, 92, 91)),
        Port(91, "tcp", "::1", 9000),
        Port(93, "udp", "0.0.0.0", 1093),
        Port(94, "tcp", "0.0.0.0", 2094),
        Port(95, "tcp", "0.0.0.0", 2096),
    ]
    assert ranges(found) == [
        "0.0.0.0:1090-1092->90-92/tcp",
        "[::1]:9000->91/tcp",
        "0.0.0.0:1093->93/udp",
        "0.0.0.0:2094->94/tcp",
        "0.0.0.0:2096->95/tcp",
    ]
