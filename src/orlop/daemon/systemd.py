"""The readiness protocol of service managers (sd_notify(3))."""

from __future__ import annotations

import os
import socket

_VARIABLE = "NOTIFY_SOCKET"


class Notifier:
    """Tells the service manager that started this process how it is; quiet without one.

    Takes the variable out of the environment: what the daemon starts must not answer for it.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop(_VARIABLE, "")

    def notify(self, state: str) -> None:
        """Send a state such as `READY=1`."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(state.encode(), address)
            except OSError:
                pass  # nobody listens any more
