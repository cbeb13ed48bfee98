from __future__ import annotations

import pytest

from orlop.web.hosts import is_welcome

NAMES = {"node1.example"}


@pytest.mark.parametrize(
    "header",
    [
        "localhost", "LOCALHOST:1339", "127.0.0.1", "127.0.0.1:80",
        "[::1]", "[::1]:1339", "10.0.0.7",
        "node1.example", "Node1.Example:443", " localhost:1 ",
    ],
)  # fmt: skip
def test_addresses_localhost_and_own_names(header: str) -> None:
    assert is_welcome(header, NAMES)


@pytest.mark.parametrize(
    "header",
    [
        "", "evil.example", "evil.example:1339", "localhost.evil.example", "127.0.0.1.evil.example",
        "node1.example.evil.example", "[::1", "::1]", "[evil.example]", "localhost:80:80",
        "localhost:x", "127.1", "0x7f000001", "[fe80::1%eth0]", "localhost, evil.example",
        "localhost@evil.example",
    ],
)  # fmt: skip
def test_no_other_name(header: str) -> None:
    assert not is_welcome(header, NAMES)
