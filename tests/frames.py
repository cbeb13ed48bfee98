"""A cable into a container's network, through which a test sends what it counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SEND = """
import socket, sys, time
count, size, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("out", 0))
frame = b"\\xff" * 6 + b"\\x02" * 6 + b"\\x88\\xb5" + bytes(size - 14)
for number in range(count):
    link.send(frame)
    if number % 200 == 199:
        time.sleep(0.01)  # the kernel queues no more than a thousand
    if pause:
        time.sleep(pause * (1 + number // 200 % 3))  # it comes and goes
"""


class Cable:
    """From a network namespace of the test's own to the container's `eth0`."""

    def __init__(self, space: str, inside: str) -> None:
        self._space = space
        self._inside = inside

    def meet(self) -> str:
        """Give both ends addresses; that of the other end, as the container sees it."""
        _ip("-n", self._space, "address", "add", "10.255.255.1/30", "dev", "out")
        _ip("-n", self._inside, "address", "add", "10.255.255.2/30", "dev", "eth0")
        return "10.255.255.1"

    def command(self, count: int, size: int, pause: float = 0) -> list[str]:
        """What sends so many frames of so many bytes, with seconds between."""
        numbers = (str(count), str(size), str(pause))
        return ["nsenter", f"--net=/run/netns/{self._space}", sys.executable, "-c", _SEND, *numbers]

    def send(self, count: int, size: int) -> None:
        subprocess.run(self.command(count, size), check=True, capture_output=True)


@contextmanager
def cable(pid: int) -> Iterator[Cable]:
    """For the container whose first process is `pid`, and has a network of its own."""
    outside, inside = f"frames-{pid}", f"frames-{pid}-c"
    _ip("netns", "add", outside)
    _ip("netns", "attach", inside, str(pid))
    try:
        quiet = "net.ipv6.conf.default.disable_ipv6=1"
        for each in (outside, inside):
            _ip("netns", "exec", each, "sysctl", "-qw", quiet)
        peer = ("peer", "name", "eth0", "netns", inside)
        _ip("-n", outside, "link", "add", "out", "type", "veth", *peer)
        _ip("-n", inside, "link", "set", "eth0", "up")
        _ip("-n", outside, "link", "set", "out", "up")
        yield Cable(outside, inside)
    finally:
        for each in (inside, outside):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", each)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
