"""How long a session waits for a daemon."""

from __future__ import annotations

from orlop.cli import session
from orlop.runtime.task import BURIAL_TIMEOUT


def test_a_daemon_that_waits_for_a_lost_shim_is_not_well_again() -> None:
    """Such a wait fails late, each time; it must not begin the session's patience anew."""
    assert session._STEADY > BURIAL_TIMEOUT
