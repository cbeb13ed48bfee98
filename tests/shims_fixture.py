"""An orlopd that runs containers by our shim, or by Debian's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon_fixture import Orlopd
from tests.lent_daemon import Lender

OWN, DEBIANS = "own-shim", "debians-shim"
_PROGRAMS = {OWN: "orlop", DEBIANS: "/usr/bin/containerd-shim-runc-v2"}


def serving_by(request: pytest.FixtureRequest, lender: Lender) -> Iterator[Orlopd]:
    """A running orlopd for one test, by `OWN` or `DEBIANS` (the parameter), checked at its end."""
    program = _PROGRAMS[request.param]
    yield from lender.lend(request.node, f'[runtimes]\n"io.containerd.runc.v2" = "{program}"\n')
