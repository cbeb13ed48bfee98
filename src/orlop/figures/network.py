"""What went through the interfaces of a process's network namespace (proc(5), net/dev)."""

from __future__ import annotations

import os
from typing import NamedTuple

_CHUNK = 64 << 10
_PAGE = 4096
_RECEIVED, _SENT = 0, 8  # columns after the interface's name


class Traffic(NamedTuple):
    """Bytes, of all interfaces but the loopback."""

    received: int
    sent: int


NO_TRAFFIC = Traffic(0, 0)


def network_of(pid: int | str) -> int:
    """What tells the network of a process from others; 0 if it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116 - of many processes, often
    except OSError:
        return 0


def of_network(pid: int, host: int) -> Traffic:
    """What a process's network received and sent; nothing if it is that of the `host`, or gone."""
    if network_of(pid) in (0, host):
        return NO_TRAFFIC
    try:
        with open(f"/proc/{pid}/net/dev", "rb", buffering=0) as file:  # noqa: PTH123 - likewise
            text = more = file.read(_CHUNK) or b""
            while len(more) > _PAGE // 2:  # whole lines, and no more than a page of them at a time
                more = file.read(_CHUNK) or b""
                text += more
    except OSError:
        return NO_TRAFFIC
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(b":")
        columns = rest.split()
        if name.strip() != b"lo" and len(columns) > _SENT:
            received += int(columns[_RECEIVED])
            sent += int(columns[_SENT])
    return Traffic(received, sent)
