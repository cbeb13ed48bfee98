from __future__ import annotations

import subprocess
import sys

import pytest

from orlop.daemon import status
from orlop.daemon.config import ConfigError, Status
from orlop.daemon.config_file import parse


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Status("1339"), r"status\.address must be host:port"),
        (Status("0.0.0.0:1339"), r"open to the network: set status\.token"),
        (Status("0.0.0.0:1339", token="/t"), r"status\.token: .*in the clear"),
        (Status("127.0.0.1:1339", cert="/c"), r"status\.cert and status\.key go together"),
        (Status("/run/s.sock", cert="/c", key="/k"), "a Unix socket has no TLS"),
        (Status("localhost:1339", hosts=("node1.example:80",)), "names without a port"),
        (Status(hosts=("*",)), r'not "\*"'),
    ],
)
def test_what_makes_no_sense_or_is_not_safe(settings: Status, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        status.check(settings)


@pytest.mark.parametrize(
    "settings",
    [
        Status(),
        Status("localhost:1339", hosts=("node1", "node1.example")),
        Status("/run/s.sock", token="/t"),
        Status("10.0.0.1:1339", cert="/c", key="/k", token="/t"),
        Status("0.0.0.0:1339", public=True),
    ],
)
def test_what_is_fine(settings: Status) -> None:
    status.check(settings)


def test_the_section() -> None:
    config = parse(b'[status]\naddress = "127.0.0.1:0"\nhosts = ["a"]\n', "config.toml")
    assert config.status == Status("127.0.0.1:0", hosts=("a",))
    with pytest.raises(ConfigError, match=r"status\.token must be an absolute path"):
        parse(b'[status]\ntoken = "secret"\n', "config.toml")


def test_who_shows_no_page_loads_nothing_of_it() -> None:
    code = "import sys, orlop.daemon.main, orlop.daemon.assembly; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "orlop.daemon.assembly" in loaded
    assert not [name for name in loaded if name.startswith(("orlop.status", "orlop.web"))]
