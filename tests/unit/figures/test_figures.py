from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from orlop import figures
from orlop.figures import Figures, Traffic
from orlop.wire import cgroups_v1_pb2 as v1
from orlop.wire import cgroups_v2_pb2 as v2

_NO_LIMIT = 2**63 - 4096


def test_both_cgroup_versions_say_the_same() -> None:
    one = v1.Metrics(
        cpu={"usage": {"total": 5_000}},
        memory={"usage": {"usage": 900, "limit": _NO_LIMIT}, "total_inactive_file": 300},
        pids={"current": 3, "limit": 50},
        blkio={
            "io_service_bytes_recursive": [
                {"op": "Read", "major": 8, "value": 10},
                {"op": "Read", "major": 9, "value": 1},
                {"op": "Write", "major": 8, "value": 20},
                {"op": "Sync", "major": 8, "value": 30},
            ]
        },
    )
    two = v2.Metrics(
        cpu={"usage_usec": 5},
        memory={"usage": 900, "usage_limit": 2**64 - 1, "inactive_file": 300},
        pids={"current": 3, "limit": 50},
        io={"usage": [{"major": 8, "rbytes": 10, "wbytes": 20}, {"major": 9, "rbytes": 1}]},
    )
    wanted = Figures(5_000, 600, 0, 3, 50, 11, 20)
    for message in (one, two):
        packed = message.SerializeToString()
        assert figures.of_message(message) == wanted
        assert figures.of_type(message.DESCRIPTOR.full_name, packed) == wanted
        assert figures.of_type(message.DESCRIPTOR.full_name, b"\xff") is None
    assert figures.of_type("example.Other", b"") is None


def test_traffic_is_that_of_all_interfaces_but_the_loopback() -> None:
    def count(name: str) -> int:
        files = (Path("/sys/class/net", each, "statistics", name) for _, each in there)
        return sum(int(each.read_text()) for each in files if each.parts[-3] != "lo")

    while True:  # until no interface of somebody else's comes or goes meanwhile
        there = socket.if_nameindex()
        with suppress(OSError):
            before = Traffic(count("rx_bytes"), count("tx_bytes"))
            found = figures.of_network(os.getpid(), host=1)
            after = Traffic(count("rx_bytes"), count("tx_bytes"))
            if socket.if_nameindex() == there:
                break
    assert before.received <= found.received <= after.received
    assert before.sent <= found.sent <= after.sent


def test_the_network_of_the_host_is_nobody_s_and_so_is_that_of_who_has_gone() -> None:
    host = figures.network_of("self")
    assert host > 0
    assert figures.of_network(os.getpid(), host) == figures.NO_TRAFFIC
    assert figures.network_of(2**22 + 1) == 0
    assert figures.of_network(2**22 + 1, host) == figures.NO_TRAFFIC
