"""Which containers the daemon removes when they end."""

from __future__ import annotations

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

_LABEL = "orlop/auto-remove"


def test_a_label_that_says_no_removes_nothing(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "no", "-l", f"{_LABEL}=false", busybox, "true")
    orlopd.wait_for(lambda: "Exited (0)" in orlopd.orlop("ps", "-a").stdout)
    orlopd.orlop("run", "-d", "--rm", "--name", "yes", busybox, "true")  # its end is heard later
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "no\n")
    orlopd.orlop("update", "--restart", "always", "no")  # it is not one of those with --rm
    orlopd.orlop("update", "--restart", "no", "no")
    orlopd.restart()
    orlopd.orlop("run", "-d", "--rm", "--name", "yes", busybox, "true")
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "no\n")
    orlopd.orlop("rm", "no")
